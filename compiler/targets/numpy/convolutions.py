"""convolutions: expressed by those that NumPy has a kernel for: without padding, with one group or depthwise.

    conv2d(x, w, padding)              = conv2d(pad(x), w)
    conv2d_filter_grad(x, dy, padding) = conv2d_filter_grad(pad(x), dy)
    conv2d_input_grad(dy, w, padding)  = crop(conv2d_input_grad(dy, w))
    conv2d(x, w, groups)               = concat(conv2d(x_1, w_1), …), and so the other two
    conv2d(x, w)                       = X @ W      if a window is one pixel: X and dY have a row for each pixel,
    conv2d_filter_grad(x, dy)          = Xᵀ @ dY    ordered by place and then by image, so that the batch can be
    conv2d_input_grad(dy, w)           = dY @ Wᵀ    innermost, and W for each channel of the input
    conv2d(x, w)                       = 0          if x or w has no elements
An image that is an input of the graph is copied, to the memory order that the kernels need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import CONVOLUTION
from compiler.ir.types import Dim, merged
from compiler.ops.convolution import is_depthwise
from compiler.ops.rules import zeros
from compiler.ops.windows import NO_PADDING, Padding
from compiler.passes.rewriting import rebuild


def lower_convolutions(graph: Graph) -> Graph:
    """See the file's docstring."""
    return rebuild(graph, rewrite)


def rewrite(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
    if CONVOLUTION not in node.op.traits:
        return None
    if any(0 in value.type.shape for value in (*operands, node.result)):
        return [zeros(builder, node.result.type)]
    attributes = dict(node.attributes)
    groups = attributes.pop("groups")
    lower = LOWERINGS[node.op.name]
    if groups == 1 or is_depthwise(node):
        return [lower(builder, *operands, groups=groups, **attributes)]
    parts = zip(*(split_channels(builder, operand, groups) for operand in operands), strict=True)
    return [builder.concat(*(lower(builder, *part, groups=1, **attributes) for part in parts), axis=3)]


def split_channels(builder: Builder, x: Value, parts: int) -> list[Value]:
    *leading, channels = x.type.shape
    size = channels // parts  # type: ignore[operator]
    zeros, ones = (0,) * len(leading), (1,) * x.type.rank
    return [
        builder.slice(x, start=(*zeros, i * size), stop=(*leading, (i + 1) * size), step=ones) for i in range(parts)
    ]


def conv2d(builder: Builder, x: Value, w: Value, padding: Padding, groups: int, **steps: Any) -> Value:
    image = padded(builder, x, padding)
    if not is_pointwise(w.type.shape, groups, steps):
        return builder.conv2d(image, w, groups=groups, **steps)
    y = builder.matmul(pixel_rows(builder, image), filter_matrix(builder, w))
    return images(builder, y, image.type.shape[:3])


def filter_grad(
    builder: Builder, x: Value, dy: Value, kernel: tuple[int, int], padding: Padding, groups: int, **steps: Any
) -> Value:
    image = padded(builder, x, padding)
    if not is_pointwise(kernel, groups, steps):
        return builder.conv2d_filter_grad(image, dy, kernel=kernel, groups=groups, **steps)
    columns = builder.transpose(pixel_rows(builder, image), permutation=(1, 0))
    dw = builder.matmul(columns, pixel_rows(builder, dy))
    return builder.reshape(dw, shape=(1, 1, *dw.type.shape))


def input_grad(
    builder: Builder, dy: Value, w: Value, input_size: tuple[int, int], padding: Padding, groups: int, **steps: Any
) -> Value:
    size = tuple(extent + sum(sides) for extent, sides in zip(input_size, padding, strict=True))
    if is_pointwise(w.type.shape, groups, steps):
        weights = builder.transpose(filter_matrix(builder, w), permutation=(1, 0))
        dx = images(builder, builder.matmul(pixel_rows(builder, dy), weights), (dy.type.shape[0], *size))
    else:
        dx = builder.conv2d_input_grad(dy, w, input_size=size, groups=groups, **steps)
    if padding == NO_PADDING:
        return dx
    (top, _), (left, _) = padding
    batch, *_, channels = dx.type.shape
    stop = (batch, top + input_size[0], left + input_size[1], channels)
    return builder.slice(dx, start=(0, top, left, 0), stop=stop, step=(1, 1, 1, 1))


LOWERINGS = {"conv2d": conv2d, "conv2d_filter_grad": filter_grad, "conv2d_input_grad": input_grad}


def padded(builder: Builder, x: Value, padding: Padding) -> Value:
    if padding == NO_PADDING:
        return builder.copy(x) if x.kind == "input" else x
    (top, bottom), (left, right) = padding
    return builder.pad(x, low=(0, top, left, 0), high=(0, bottom, right, 0), value=0.0)


def is_pointwise(kernel: Sequence[Dim], groups: int, steps: dict[str, Any]) -> bool:
    return groups == 1 and tuple(kernel[:2]) == (1, 1) and steps["stride"] == (1, 1)


def pixel_rows(builder: Builder, x: Value) -> Value:
    """[N, H, W, C] as a matrix with one row per pixel, ordered by row, column and image."""
    turned = builder.transpose(x, permutation=(1, 2, 0, 3))
    return builder.reshape(turned, shape=(merged(turned.type.shape[:3]), x.type.shape[3]))


def images(builder: Builder, pixels: Value, size: Sequence[Dim]) -> Value:
    """Undoes `pixel_rows`; the size is (N, H, W)."""
    batch, rows, columns = size
    turned = builder.reshape(pixels, shape=(rows, columns, batch, pixels.type.shape[1]))
    return builder.transpose(turned, permutation=(2, 0, 1, 3))


def filter_matrix(builder: Builder, w: Value) -> Value:
    """[1, 1, C, F] as a matrix."""
    return builder.reshape(w, shape=w.type.shape[2:])
