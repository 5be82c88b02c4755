"""How tensors lie in memory: the order of their axes, and which of their views need no copy.

In the language the batch is the first axis and channels are the last. On a CPU the batch is best innermost: every loop
of a ufunc, of im2col or of pooling then runs over long contiguous rows. So the order of the axes is a property of the
buffer alone; shapes in the IR stay as the model says, and a buffer in another order is seen through a transposed view.

Strides are counted in elements, with a large prime in the place of the batch: no static dimension is equal to it by
chance, so what holds there holds for every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import ELEMENTWISE
from compiler.ir.types import SAMPLE_BATCH, Batch, Shape, at_batch

Order = tuple[int, ...]  # axes from outermost to innermost
Strides = tuple[int, ...]

CHANNELS_FIRST_BATCH_LAST: Order = (3, 1, 2, 0)  # of images [N, H, W, C]
PATCHES_BATCH_LAST: Order = (3, 4, 5, 1, 2, 0)  # of patches [N, OH, OW, kh, kw, C]
IMAGE_OPS = (
    "conv2d", "conv2d_input_grad", "fold", "max_pool2d", "max_pool2d_grad", "max_pool2d_with_index", "max_pool2d_route",
)  # fmt: skip
ROW_MAJOR_OPS = ("random", "gather", "scatter_add", "orthogonalize", "conv2d_filter_grad")  # written in reading order


def strides_in_order(shape: Shape, order: Order) -> Strides:
    """The strides of a buffer whose axes are laid out in an order."""
    sizes = at_batch(shape, SAMPLE_BATCH)
    return tuple(prod(sizes[inner] for inner in order[order.index(axis) + 1 :]) for axis in range(len(sizes)))


def batch_last(shape: Shape) -> Order:
    """The axes as they are, but for those of the batch, which come last."""
    axes = range(len(shape))
    return (*(a for a in axes if not isinstance(shape[a], Batch)), *(a for a in axes if isinstance(shape[a], Batch)))


def order_of(strides: Strides) -> Order | None:
    """The order of axes with these strides; None for a tensor whose elements share places."""
    return None if 0 in strides else tuple(sorted(range(len(strides)), key=lambda axis: -abs(strides[axis])))


def preferred_order(node: Node, index: int, strides: Mapping[Value, Strides]) -> Order:
    """The order in which a node's result is written fastest and read best."""
    shape, name = node.results[index].type.shape, node.op.name
    if name in ROW_MAJOR_OPS:
        return tuple(range(len(shape)))
    if name in IMAGE_OPS:
        return CHANNELS_FIRST_BATCH_LAST
    if name == "patches":
        return PATCHES_BATCH_LAST
    if name == "matmul":
        return product_order(shape)
    if name in ("sum", "sum_of_products", "reduce_max"):
        return reduced_order(node, strides) or batch_last(shape)
    if name == "scan":
        return stacked_order(shape) if index >= node.attributes["carries"] else batch_last(shape)
    order = followed_order(node, shape, strides) or batch_last(shape)
    return reshaped_order(node, order) if name == "reshape" else order


def reshaped_order(node: Node, order: Order) -> Order:
    """The order if the result, where it has to be copied, can be filled through a view of the operand's shape in it."""
    shape = node.result.type.shape
    fits = split_anew(shape, node.operands[0].type.shape, strides_in_order(shape, order)) is not None
    return order if fits else tuple(range(len(shape)))


def product_order(shape: Shape) -> Order:
    """Rows innermost where the batch is among the rows alone: BLAS writes either order."""
    *leading, rows, columns = range(len(shape))
    swap = isinstance(shape[rows], Batch) and not isinstance(shape[columns], Batch)
    return (*leading, columns, rows) if swap else (*leading, rows, columns)


def stacked_order(shape: Shape) -> Order:
    """Of the steps of a scan, [T, …]: time just outside of the batch, so that T * B can be one axis of a product."""
    steps = batch_last(shape[1:])
    static = [axis + 1 for axis in steps if not isinstance(shape[axis + 1], Batch)]
    batch = [axis + 1 for axis in steps if isinstance(shape[axis + 1], Batch)]
    return (*static, 0, *batch) if batch else (0, *static)


def reduced_order(node: Node, strides: Mapping[Value, Strides]) -> Order | None:
    """The operand's order, less the axes that go."""
    order = order_of(strides.get(node.operands[0], (0,)))
    if order is None or node.attributes.get("keepdims"):
        return order
    axes = node.attributes["axes"]
    left = sorted(set(order) - set(axes))
    return tuple(left.index(axis) for axis in order if axis not in axes)


def followed_order(node: Node, shape: Shape, strides: Mapping[Value, Strides]) -> Order | None:
    """The order of the first operand of the same shape (elementwise) or rank that was not given from outside."""
    for operand in node.operands:
        same = operand.type.shape == shape if ELEMENTWISE in node.op.traits else operand.type.rank == len(shape)
        if same and not isinstance(operand, Literal) and operand.kind not in ("input", "target"):
            order = order_of(strides[operand])
            if order is not None:
                return order
    return None


# Views: the strides of the result from those of the operand, or None where NumPy would have to copy.


def reshaped(node: Node, strides: Strides) -> Strides | None:
    return split_anew(node.operands[0].type.shape, node.result.type.shape, strides)


def split_anew(shape: Shape, new: Shape, strides: Strides) -> Strides | None:
    """Merges neighbouring axes that are contiguous to each other, and splits them anew."""
    before = [(d, s) for d, s in zip(at_batch(shape, SAMPLE_BATCH), strides, strict=True) if d != 1]
    after = at_batch(new, SAMPLE_BATCH)
    if any(dim == 0 for dim, _ in before):
        return strides_in_order(new, tuple(range(len(after))))
    result: list[int] = [0] * len(after)
    axis = len(after) - 1
    while before:
        size, stride = before.pop()
        step = stride
        taken = 1
        while axis >= 0 and (taken < size or after[axis] == 1):
            taken *= after[axis]
            result[axis], step = step, step * after[axis]
            axis -= 1
            while taken > size and before and before[-1][1] == stride * size:
                size *= before.pop()[0]
        if taken != size:
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
    """The strides of the node's result as a view of its first operand, or None where there is no such view."""
    return VIEW_STRIDES[node.op.name](node, strides)
