"""im2col: convolutions as products with matrices of patches, for a library that has the products.

    conv2d(x, w)              = patches(x) @ W         a row of patches for each place of the window, W [taps * C, O]
    conv2d_filter_grad(x, dy) = patches(x)ᵀ @ dY
    conv2d_input_grad(dy, w)  = fold(dY @ Wᵀ)
Convolutions with several groups stay. The patches are written to memory and are larger than the image by the number of
taps. The pass is optional: it is the baseline for the kernels that need no patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.types import Dim, merged
from compiler.ops.windows import NO_PADDING
from compiler.passes.rewriting import rebuild


def multiply_patches(graph: Graph) -> Graph:
    """See the file's docstring."""
    return rebuild(graph, rewrite)


def rewrite(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
    if node.op.name not in PRODUCTS or node.attributes["groups"] != 1:
        return None
    steps = {name: node.attributes[name] for name in ("stride", "padding", "dilation")}
    return [PRODUCTS[node.op.name](builder, node, *operands, steps)]


def patch_rows(builder: Builder, x: Value, window: Sequence[Dim], steps: dict[str, Any]) -> Value:
    """The patches, a row for each place; the image itself if a window is one pixel."""
    return matrix(builder, x if is_pixel(window, steps) else builder.patches(x, window=window, **steps), 3)


def is_pixel(window: Sequence[Dim], steps: dict[str, Any]) -> bool:
    return tuple(window) == (1, 1) == steps["stride"] and steps["padding"] == NO_PADDING


def convolution(builder: Builder, node: Node, x: Value, w: Value, steps: dict[str, Any]) -> Value:
    product = builder.matmul(patch_rows(builder, x, w.type.shape[:2], steps), matrix(builder, w, 3))
    return builder.reshape(product, shape=node.result.type.shape)


def filter_gradient(builder: Builder, node: Node, x: Value, dy: Value, steps: dict[str, Any]) -> Value:
    rows = patch_rows(builder, x, node.attributes["kernel"], steps)
    product = builder.matmul(transposed(builder, rows), matrix(builder, dy, 3))
    return builder.reshape(product, shape=node.result.type.shape)


def input_gradient(builder: Builder, node: Node, dy: Value, w: Value, steps: dict[str, Any]) -> Value:
    product = builder.matmul(matrix(builder, dy, 3), transposed(builder, matrix(builder, w, 3)))
    if is_pixel(w.type.shape[:2], steps):
        return builder.reshape(product, shape=node.result.type.shape)
    parts = builder.reshape(product, shape=(*dy.type.shape[:3], *w.type.shape[:3]))
    return builder.fold(parts, input_size=node.attributes["input_size"], **steps)


def matrix(builder: Builder, x: Value, rows: int) -> Value:
    """The first axes as rows, the others as columns."""
    return builder.reshape(x, shape=(merged(x.type.shape[:rows]), merged(x.type.shape[rows:])))


def transposed(builder: Builder, x: Value) -> Value:
    return builder.transpose(x, permutation=(1, 0))


PRODUCTS: dict[str, Callable[..., Value]] = {
    "conv2d": convolution,
    "conv2d_filter_grad": filter_gradient,
    "conv2d_input_grad": input_gradient,
}
