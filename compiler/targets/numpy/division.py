"""Which nodes can be computed part by part, and along which axis: the basis of fusion on a CPU.

Every tensor has one axis along which it may be divided, which follows from its type: channels of images and features of
rows, since the batch is innermost in memory, and the first axis of tensors without a batch. A node is divisible if the
part of its result at some indices of that axis needs only the parts of its operands at the same indices, and operands
without that axis as a whole. Divisible nodes that read each other can run in one loop over parts that stay in the
cache, with different parts on different threads.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import ELEMENTWISE
from compiler.ir.types import Batch, Shape, TensorType, extent
from compiler.ops import OPS

SHARED = -1  # in place of an axis: every part needs the whole operand
Axes = list[int]


def divided_axis(type: TensorType) -> int | None:
    """The axis along which a tensor is divided; None if no axis but the batch is longer than 1."""
    static = [axis for axis, dim in enumerate(type.shape) if not isinstance(dim, Batch) and dim != 1]
    if not static:
        return None
    return static[-1] if len(static) < type.rank and static[-1] == type.rank - 1 else static[0]


def operand_axes(node: Node) -> Axes | None:
    """For each operand of a divisible node the axis of its parts, or SHARED; None if the node is not divisible."""
    axis = divided_axis(node.results[0].type)
    rule = DIVISIONS.get(node.op.name, elementwise if ELEMENTWISE in node.op.traits else None)
    if axis is None or rule is None or any(divided_axis(result.type) != axis for result in node.results):
        return None
    axes = rule(node, axis)
    if axes is None:
        return None
    parts = zip(axes, node.operands, strict=True)
    return axes if all(found == SHARED or found == divided_axis(operand.type) for found, operand in parts) else None


def elementwise(node: Node, axis: int) -> Axes:
    """Operands are broadcast to the result: aligned at their last axes."""
    shape = node.result.type.shape
    return [aligned(operand, shape, axis) for operand in node.operands]


def aligned(operand: Value, shape: Shape, axis: int) -> int:
    own = axis - (len(shape) - operand.type.rank)
    return SHARED if own < 0 or isinstance(operand, Literal) or operand.type.shape[own] != shape[axis] else own


def reduction(node: Node, axis: int) -> Axes | None:
    """An axis that is not reduced, at its position in the operand."""
    gone = node.reduced_axes
    if node.attributes.get("keepdims"):
        return None if axis in gone else [axis]
    left = [each for each in range(node.operands[0].type.rank) if each not in gone]
    return [left[axis]] * len(node.operands)


def reshape(node: Node, axis: int) -> Axes | None:
    """An axis of both shapes, with the same number of elements after it."""
    old, new = node.operands[0].type.shape, node.result.type.shape
    after = extent(new[axis + 1 :])
    same = (i for i, dim in enumerate(old) if dim == new[axis] and extent(old[i + 1 :]) == after)
    found = next(same, None)
    return None if found is None else [found]


def slicing(node: Node, axis: int) -> Axes | None:
    """An axis that is not sliced."""
    whole = node.attributes["start"][axis] == 0 and node.attributes["step"][axis] == 1
    return [axis] if whole and node.operands[0].type.shape[axis] == node.result.type.shape[axis] else None


def image_channels(node: Node, axis: int) -> Axes | None:
    """Channels of images [N, H, W, C] or patches [N, OH, OW, kh, kw, C], in operands and results alike."""
    return [operand.type.rank - 1 for operand in node.operands] if axis == node.results[0].type.rank - 1 else None


Division = Callable[[Node, int], Axes | None]
DIVISIONS: dict[str, Division] = {
    **{name: reduction for name, op in OPS.items() if op.reduces},
    **dict.fromkeys(("max_pool2d", "max_pool2d_grad", "patches", "fold"), image_channels),
    **dict.fromkeys(("max_pool2d_with_index", "max_pool2d_route"), image_channels),
    "broadcast": elementwise,
    "reshape": reshape,
    "transpose": lambda node, axis: [node.attributes["permutation"][axis]],
    "slice": slicing,
}
