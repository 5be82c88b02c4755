"""Which nodes can be computed part by part, and along which axis: what fusion on a CPU rests on.

Every tensor has one axis along which it may be divided, by its type alone: channels of images and features of rows,
since the batch lies innermost in memory, and the first axis of tensors without a batch. A node is divisible if the part
of its result at some indices of that axis needs of each operand either the part at the same indices or, of an operand
without that axis, the whole. Divisible nodes that read each other can then run in one loop over parts that stay in the
cache, and different parts on different threads.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import ELEMENTWISE
from compiler.ir.types import Batch, Shape, TensorType, extent

SHARED = -1  # in the place of an axis: every part needs the whole operand
Axes = list[int]
CHANNELS = 3  # of images [N, H, W, C]


def divided_axis(type: TensorType) -> int | None:
    """The axis of the parts of a tensor; None where there is none longer than 1 but the batch."""
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
    """An axis that stays, at its place in the operand."""
    gone = node.attributes["axes"] if "axes" in node.attributes else (node.attributes["axis"],)
    if node.attributes.get("keepdims"):
        return None if axis in gone else [axis]
    left = [each for each in range(node.operands[0].type.rank) if each not in gone]
    return [left[axis]] * len(node.operands)


def reshape(node: Node, axis: int) -> Axes | None:
    """An axis that is among the dimensions of both, with as many elements behind it."""
    old, new = node.operands[0].type.shape, node.result.type.shape
    behind = extent(new[axis + 1 :])
    same = (i for i, dim in enumerate(old) if dim == new[axis] and extent(old[i + 1 :]) == behind)
    found = next(same, None)
    return None if found is None else [found]


def slicing(node: Node, axis: int) -> Axes | None:
    """An axis that is taken whole."""
    whole = node.attributes["start"][axis] == 0 and node.attributes["step"][axis] == 1
    return [axis] if whole and node.operands[0].type.shape[axis] == node.result.type.shape[axis] else None


def image_channels(node: Node, axis: int) -> Axes | None:
    """Channels of images [N, H, W, C] or patches [N, OH, OW, kh, kw, C], in operands and results alike."""
    return [operand.type.rank - 1 for operand in node.operands] if axis == node.results[0].type.rank - 1 else None


Division = Callable[[Node, int], Axes | None]
DIVISIONS: dict[str, Division] = {
    **dict.fromkeys(("sum", "sum_of_products", "reduce_max", "argmax"), reduction),
    **dict.fromkeys(("max_pool2d", "max_pool2d_grad", "patches", "fold"), image_channels),
    **dict.fromkeys(("max_pool2d_with_index", "max_pool2d_route"), image_channels),
    "broadcast": elementwise,
    "reshape": reshape,
    "transpose": lambda node, axis: [node.attributes["permutation"][axis]],
    "slice": slicing,
}
