"""Strides of tensors in memory, the order of their axes, and which reshapes and slices are views without a copy.

Shapes in the IR are those of the model; the order of the axes in memory is a property of the buffer, chosen by the
target (`Placement`). A buffer in another order is accessed through a transposed view.

Strides are counted in elements, with a large prime in place of the batch size: no static dimension equals it by chance,
so a result for it is valid for every batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from compiler.ir.graph import Node
from compiler.ir.types import SAMPLE_BATCH, Batch, Shape, at_batch

Order = tuple[int, ...]  # axes from outermost to innermost
Strides = tuple[int, ...]


def strides_in_order(shape: Shape, order: Order) -> Strides:
    """The strides of a contiguous buffer with its axes in this order."""
    sizes = at_batch(shape, SAMPLE_BATCH)
    return tuple(prod(sizes[inner] for inner in order[order.index(axis) + 1 :]) for axis in range(len(sizes)))


def batch_last(shape: Shape) -> Order:
    """The axes in the order of the shape, except that batch axes come last."""
    axes = range(len(shape))
    return (*(a for a in axes if not isinstance(shape[a], Batch)), *(a for a in axes if isinstance(shape[a], Batch)))


def order_of(strides: Strides) -> Order | None:
    """The order of axes with these strides; None if elements share addresses, as after a broadcast."""
    return None if 0 in strides else tuple(sorted(range(len(strides)), key=lambda axis: -abs(strides[axis])))


# Views: the strides of the result from those of the operand, or None if NumPy would have to copy.


def reshaped(node: Node, strides: Strides) -> Strides | None:
    return reshaped_strides(node.operands[0].type.shape, node.result.type.shape, strides)


def reshaped_strides(shape: Shape, new: Shape, strides: Strides) -> Strides | None:
    """Merges adjacent axes that are contiguous, and splits them again into the new shape."""
    before = [(d, s) for d, s in zip(at_batch(shape, SAMPLE_BATCH), strides, strict=True) if d != 1]
    after = at_batch(new, SAMPLE_BATCH)
    if any(dim == 0 for dim, _ in before):
        return strides_in_order(new, tuple(range(len(after))))
    result: list[int] = [0] * len(after)
    axis = len(after) - 1
    while before:
        size, stride = before.pop()
        step = stride
        covered = 1  # elements of the merged axes that new axes account for
        while axis >= 0 and (covered < size or after[axis] == 1):
            covered *= after[axis]
            result[axis], step = step, step * after[axis]
            axis -= 1
            while covered > size and before and before[-1][1] == stride * size:
                size *= before.pop()[0]
        if covered != size:
            return None
    return tuple(result)


def sliced(node: Node, strides: Strides) -> Strides:
    return tuple(stride * step for stride, step in zip(strides, node.attributes["step"], strict=True))


def flipped(node: Node, strides: Strides) -> Strides:
    return tuple(-stride if axis in node.attributes["axes"] else stride for axis, stride in enumerate(strides))


def stretched(node: Node, strides: Strides) -> Strides:
    old, new = node.operands[0].type.shape, node.result.type.shape
    lead = len(new) - len(old)
    return (*[0] * lead, *(s if old[i] == new[lead + i] else 0 for i, s in enumerate(strides)))


VIEW_STRIDES: dict[str, Callable[[Node, Strides], Strides | None]] = {
    "reshape": reshaped,
    "slice": sliced,
    "flip": flipped,
    "broadcast": stretched,
    "transpose": lambda node, strides: tuple(strides[axis] for axis in node.attributes["permutation"]),
    "stop_gradient": lambda node, strides: strides,
}


def view_strides(node: Node, strides: Strides) -> Strides | None:
    """The strides of the node's result as a view of its first operand, or None if there is no such view."""
    return VIEW_STRIDES[node.op.name](node, strides)
