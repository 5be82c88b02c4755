"""convolution-to-product: a convolution as a matrix product over patches, for targets without convolutions.

With X = patches(x) as a matrix of one row per output pixel, ordered by place and then by image (so that the batch may
lie innermost), and W the filters as a matrix:
    conv2d(x, w)              = X @ W
    conv2d_filter_grad(x, dy) = Xᵀ @ dY        the patches are the same node after common-subexpressions
    conv2d_input_grad(dy, w)  = fold(dY @ Wᵀ)
Depthwise convolutions (one input channel a group) stay; other grouped convolutions are split into one product a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.types import Dim, merged
from compiler.ops.windows import output_size
from compiler.passes.rewriting import rebuild


def convolutions_to_products(graph: Graph) -> Graph:
    """See the file's docstring."""
    return rebuild(graph, rewrite)


def rewrite(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
    if node.op.name not in LOWERINGS or is_depthwise(node):
        return None
    lower = LOWERINGS[node.op.name]
    attributes = dict(node.attributes)
    groups = attributes.pop("groups")
    if groups == 1:
        return [lower(builder, *operands, **attributes)]
    parts = zip(*(split_channels(builder, operand, groups) for operand in operands), strict=True)
    return [builder.concat(*(lower(builder, *part, **attributes) for part in parts), axis=3)]


def split_channels(builder: Builder, x: Value, parts: int) -> list[Value]:
    *leading, channels = x.type.shape
    size = channels // parts  # type: ignore[operator]
    zeros, ones = (0,) * len(leading), (1,) * x.type.rank
    return [
        builder.slice(x, start=(*zeros, i * size), stop=(*leading, (i + 1) * size), step=ones) for i in range(parts)
    ]


def is_depthwise(node: Node) -> bool:
    groups = node.attributes["groups"]
    image = node.operands[0] if node.op.name != "conv2d_input_grad" else node.result
    return groups > 1 and image.type.shape[3] == groups


def product(builder: Builder, x: Value, w: Value, **window: Any) -> Value:
    """conv2d(x, w) = X @ W."""
    *kernel, _, filters = w.type.shape
    size = output_size(x.type.shape[1:3], tuple(kernel), **window)
    y = builder.matmul(patch_rows(builder, x, kernel, window), matrix(builder, w, columns=1))
    return images(builder, y, x.type.shape[0], size, (filters,))


def filter_gradient(builder: Builder, x: Value, dy: Value, kernel: tuple[int, int], **window: Any) -> Value:
    """conv2d_filter_grad(x, dy) = Xᵀ @ dY."""
    patches = patch_rows(builder, x, kernel, window)
    dw = builder.matmul(builder.transpose(patches, permutation=(1, 0)), pixel_rows(builder, dy))
    return builder.reshape(dw, shape=(*kernel, x.type.shape[3], dy.type.shape[3]))


def input_gradient(builder: Builder, dy: Value, w: Value, input_size: tuple[int, int], **window: Any) -> Value:
    """conv2d_input_grad(dy, w) = fold(dY @ Wᵀ)."""
    *kernel, channels, _ = w.type.shape
    batch, rows, columns, _ = dy.type.shape
    weights = builder.transpose(matrix(builder, w, columns=1), permutation=(1, 0))
    patches = builder.matmul(pixel_rows(builder, dy), weights)
    if is_pointwise(kernel, window):
        return images(builder, patches, batch, input_size, (channels,))
    parts = images(builder, patches, batch, (rows, columns), (*kernel, channels))
    return builder.fold(parts, input_size=input_size, **window)


LOWERINGS = {"conv2d": product, "conv2d_filter_grad": filter_gradient, "conv2d_input_grad": input_gradient}


def patch_rows(builder: Builder, x: Value, kernel: Sequence[Dim], window: dict[str, Any]) -> Value:
    """X: one row per output pixel, one column per tap and channel."""
    if is_pointwise(kernel, window):
        return pixel_rows(builder, x)
    return pixel_rows(builder, builder.patches(x, window=tuple(kernel), **window))


def is_pointwise(kernel: Sequence[Dim], window: dict[str, Any]) -> bool:
    return tuple(kernel) == (1, 1) and window["stride"] == (1, 1) and window["padding"] == ((0, 0), (0, 0))


def pixel_rows(builder: Builder, x: Value) -> Value:
    """[N, H, W, …] as a matrix of one row per pixel, ordered by row, column and image."""
    rest = range(3, x.type.rank)
    return matrix(builder, builder.transpose(x, permutation=(1, 2, 0, *rest)), columns=len(rest))


def images(builder: Builder, pixels: Value, batch: Dim, size: Sequence[Dim], shape: Sequence[Dim]) -> Value:
    """Undoes `pixel_rows`: [N, H, W, …]."""
    turned = builder.reshape(pixels, shape=(*size, batch, *shape))
    return builder.transpose(turned, permutation=(2, 0, 1, *range(3, 3 + len(shape))))


def matrix(builder: Builder, x: Value, columns: int) -> Value:
    """A matrix whose columns are the last `columns` axes."""
    shape = x.type.shape
    return builder.reshape(x, shape=(merged(shape[:-columns]), merged(shape[-columns:])))
