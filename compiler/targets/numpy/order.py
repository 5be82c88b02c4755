"""The order of the axes of each tensor in memory, for NumPy programs.

In the language the batch is the first axis and channels are the last. On a CPU the batch is best innermost: every loop
of a ufunc, im2col or pooling then runs over long contiguous rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import ELEMENTWISE, IMAGES, LOOP
from compiler.ir.types import Batch, Shape
from compiler.planning.strides import Order, Strides, batch_last, order_of, reshaped_strides, strides_in_order

CHANNELS_FIRST_BATCH_LAST: Order = (3, 1, 2, 0)  # of images [N, H, W, C]
PATCHES_BATCH_LAST: Order = (3, 4, 5, 1, 2, 0)  # of patches [N, OH, OW, kh, kw, C]
ROW_MAJOR_OPS = ("random", "gather", "scatter_add", "orthogonalize", "conv2d_filter_grad")  # written in reading order


def preferred_order(node: Node, index: int, strides: Mapping[Value, Strides]) -> Order:
    """The order in which a node's result is fastest to write and read."""
    shape, name = node.results[index].type.shape, node.op.name
    if name in ROW_MAJOR_OPS:
        return tuple(range(len(shape)))
    if IMAGES in node.op.traits:
        return CHANNELS_FIRST_BATCH_LAST
    if name == "patches":
        return PATCHES_BATCH_LAST
    if name == "matmul":
        return product_order(shape)
    if node.op.reduces in ("sum", "max"):
        return reduced_order(node, strides) or batch_last(shape)
    if LOOP in node.op.traits:
        return stacked_order(shape) if index >= node.attributes["carries"] else batch_last(shape)
    order = followed_order(node, shape, strides) or batch_last(shape)
    return reshaped_order(node, order) if name == "reshape" else order


def reshaped_order(node: Node, order: Order) -> Order:
    """This order if a result in it can be written through a view of the operand's shape; else the order of the axes."""
    shape = node.result.type.shape
    fits = reshaped_strides(shape, node.operands[0].type.shape, strides_in_order(shape, order)) is not None
    return order if fits else tuple(range(len(shape)))


def product_order(shape: Shape) -> Order:
    """Rows innermost if only they include the batch: BLAS writes either order."""
    *leading, rows, columns = range(len(shape))
    swap = isinstance(shape[rows], Batch) and not isinstance(shape[columns], Batch)
    return (*leading, columns, rows) if swap else (*leading, rows, columns)


def stacked_order(shape: Shape) -> Order:
    """For the steps of a scan, [T, …]: time just outside the batch, so that T * B can be one axis of a product."""
    steps = batch_last(shape[1:])
    static = [axis + 1 for axis in steps if not isinstance(shape[axis + 1], Batch)]
    batch = [axis + 1 for axis in steps if isinstance(shape[axis + 1], Batch)]
    return (*static, 0, *batch) if batch else (0, *static)


def reduced_order(node: Node, strides: Mapping[Value, Strides]) -> Order | None:
    """The operand's order without the reduced axes."""
    order = order_of(strides.get(node.operands[0], (0,)))
    if order is None or node.attributes.get("keepdims"):
        return order
    axes = node.reduced_axes
    remaining = sorted(set(order) - set(axes))
    return tuple(remaining.index(axis) for axis in order if axis not in axes)


def followed_order(node: Node, shape: Shape, strides: Mapping[Value, Strides]) -> Order | None:
    """The order of the first operand of the same shape (elementwise) or rank that is no input of the model."""
    for operand in node.operands:
        same = operand.type.shape == shape if ELEMENTWISE in node.op.traits else operand.type.rank == len(shape)
        if same and not isinstance(operand, Literal) and operand.kind not in ("input", "target"):
            order = order_of(strides[operand])
            if order is not None:
                return order
    return None
