"""Convolution of images, channels last, and its two adjoints; each is a gradient of the others.

x [N, H, W, C]   w [kh, kw, C / groups, O]   y [N, OH, OW, O]
y[n, p, q, o] = sum over i, j, c of x[n, p*sh + i*dh - top, q*sw + j*dw - left, c] * w[i, j, c, o], c in the group of o

Output channels are ordered by group: channel o belongs to group o // (O / groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir.graph import Node
from compiler.ir.op import CONVOLUTION, IMAGES, PRODUCT, REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import FLOATS, TYPICAL_BATCH, TensorType, TypeRuleError, at_batch
from compiler.ops.rules import (
    elements,
    equation,
    expect_dtype,
    expect_integer,
    expect_integers,
    expect_rank,
    expect_same_dtype,
    expect_static,
)
from compiler.ops.windows import (
    WINDOW,
    Padding,
    Pair,
    crop_images,
    expect_gradient,
    output_size,
    pad_images,
    taps,
    window_of,
)

IMAGE_CONVOLUTION = frozenset({PRODUCT, CONVOLUTION, IMAGES})
GROUPED = {**WINDOW, "groups": 1}
ALL_AT_ONCE = {"stride": (2, 2), "padding": ((1, 0), (0, 2)), "dilation": (2, 1), "groups": 2}  # for samples


def sizes_of(node: Node) -> list[tuple[int, ...]]:
    """The shapes of x, w and y of a convolution or of one of its adjoints, at a typical batch."""
    first, second, result = (at_batch(value.type.shape, TYPICAL_BATCH) for value in (*node.operands, *node.results))
    return {
        "conv2d": [first, second, result],
        "conv2d_input_grad": [result, second, first],
        "conv2d_filter_grad": [first, result, second],
    }[node.op.name]


def is_depthwise(node: Node) -> bool:
    """Whether each channel of the image is a group."""
    return 1 < node.attributes["groups"] == sizes_of(node)[0][3]


def infer_conv2d(
    types: Sequence[TensorType], stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> TensorType:
    expect_operands(types, "the image", "the kernel", groups)
    x, w = types
    batch, *size, channels = x.shape
    *kernel, depth, filters = expect_static(w.shape, "a dimension of the kernel")
    if channels != depth * groups:
        expected = f"{depth * groups} channels in the image" + (f", {groups} groups of {depth}" if groups > 1 else "")
        raise TypeRuleError("the kernel does not fit the image's channels", expected, f"{x} and kernel {w}")
    expect_groups("output channels", filters, groups)
    return x.with_shape((batch, *output_size(size, tuple(kernel), stride, padding, dilation), filters))


def infer_input_grad(types: Sequence[TensorType], input_size: Pair, groups: int, **window: Any) -> TensorType:
    expect_operands(types, "the gradient", "the kernel", groups)
    dy, w = types
    expect_integers("input size", input_size, 2)
    depth = expect_static(w.shape, "a dimension of the kernel")[2]
    x = dy.with_shape((dy.shape[0], *input_size, depth * groups))
    expect_gradient(infer_conv2d([x, w], groups=groups, **window), dy, "convolution")
    return x


def infer_filter_grad(types: Sequence[TensorType], kernel: Pair, groups: int, **window: Any) -> TensorType:
    expect_operands(types, "the image", "the gradient", groups)
    x, dy = types
    expect_integers("kernel", kernel, 2, least=1)
    channels, filters = expect_static((x.shape[3], dy.shape[3]), "the channels")
    expect_groups("input channels", channels, groups)
    w = x.with_shape((*kernel, channels // groups, filters))
    expect_gradient(infer_conv2d([x, w], groups=groups, **window), dy, "convolution")
    return w


def expect_operands(types: Sequence[TensorType], first: str, second: str, groups: int) -> None:
    expect_count(types, 2)
    expect_same_dtype(types)
    expect_integer("groups", groups, least=1)
    for type, what in zip(types, (first, second), strict=True):
        expect_dtype(type, FLOATS, what)
        expect_rank(type, 4, what)


def expect_groups(what: str, channels: int, groups: int) -> None:
    if channels % groups:
        raise TypeRuleError(f"the {what} do not divide into groups", f"a multiple of {groups}", str(channels))


def conv2d(x: np.ndarray, w: np.ndarray, groups: int, stride: Pair, padding: Padding, dilation: Pair) -> np.ndarray:
    output = output_size(x.shape[1:3], w.shape[:2], stride, padding, dilation)
    y = np.zeros((len(x), *output, groups, w.shape[3] // groups))
    for i, j, seen in taps(pad_images(x, padding), w.shape[:2], stride, output, dilation):
        y += np.einsum("npqgc,cgo->npqgo", by_group(seen, groups), by_group(w[i, j], groups))
    return y.reshape(len(x), *output, w.shape[3])


def input_grad(
    dy: np.ndarray, w: np.ndarray, input_size: Pair, groups: int, stride: Pair, padding: Padding, dilation: Pair
) -> np.ndarray:
    x = pad_images(np.zeros((len(dy), *input_size, groups * w.shape[2])), padding)
    for i, j, seen in taps(x, w.shape[:2], stride, dy.shape[1:3], dilation):
        seen += np.einsum("npqgo,cgo->npqgc", by_group(dy, groups), by_group(w[i, j], groups)).reshape(seen.shape)
    return crop_images(x, padding)


def filter_grad(
    x: np.ndarray, dy: np.ndarray, kernel: Pair, groups: int, stride: Pair, padding: Padding, dilation: Pair
) -> np.ndarray:
    w = np.zeros((*kernel, x.shape[3] // groups, dy.shape[3]))
    for i, j, seen in taps(pad_images(x, padding), kernel, stride, dy.shape[1:3], dilation):
        w[i, j] = np.einsum("npqgc,npqgo->cgo", by_group(seen, groups), by_group(dy, groups)).reshape(w.shape[2:])
    return w


def by_group(array: np.ndarray, groups: int) -> np.ndarray:
    """[..., channels] as [..., groups, channels / groups]."""
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


def cost(output: TensorType, filters: TensorType, batch: int) -> int:
    """A multiplication and an addition for each output element, tap of the window, and channel of the group."""
    return 2 * elements(output, batch) * elements(filters.with_shape(filters.shape[:3]), batch)


OPS = (
    Op(
        "conv2d",
        infer=infer_conv2d,
        gradient=equation(
            lambda builder, dy, y, x, w: [
                builder.conv2d_input_grad(dy, w, input_size=x.type.shape[1:3], **window_of(y)),
                builder.conv2d_filter_grad(x, dy, kernel=w.type.shape[:2], **window_of(y)),
            ]
        ),
        reference=conv2d,
        attributes=GROUPED,
        traits=IMAGE_CONVOLUTION,
        cost=lambda operands, results, batch: cost(results[0], operands[1], batch),
        samples=(
            sample("f32[1,1,1,1]", "f32[1,1,1,1]"),
            sample("f32[B,4,4,2]", "f32[3,3,2,3]"),
            sample("f64[2,3,4,1]", "f64[2,1,1,2]"),
            sample("f32[B,5,4,2]", "f32[3,2,2,2]", stride=(2, 1)),
            sample("f32[B,5,5,1]", "f32[2,2,1,1]", stride=(3, 2)),
            sample("f32[B,3,3,2]", "f32[3,3,2,1]", padding=((1, 1), (1, 1))),
            sample("f32[2,3,4,1]", "f32[2,3,1,2]", padding=((0, 2), (1, 0))),
            sample("f32[B,5,6,1]", "f32[2,3,1,1]", dilation=(3, 2)),
            sample("f32[2,3,3,4]", "f32[2,2,2,6]", groups=2),
            sample("f32[B,3,3,3]", "f32[2,2,1,3]", groups=3),
            sample("f32[0,3,3,1]", "f32[2,2,1,1]"),
            sample("f32[2,0,2,1]", "f32[1,1,1,2]", padding=((1, 2), (0, 0))),
            sample("f32[2,6,5,4]", "f32[2,2,2,2]", **ALL_AT_ONCE),
        ),
        errors=(
            error("window is larger", "f32[B,3,3,1]", "f32[5,5,1,1]"),
            error("window is larger", "f32[B,3,3,1]", "f32[2,2,1,1]", dilation=(3, 1)),
            error("channels", "f32[B,3,3,2]", "f32[2,2,3,1]"),
            error("channels", "f32[B,3,3,2]", "f32[2,2,2,2]", groups=2),
            error("divide into groups", "f32[B,3,3,4]", "f32[2,2,2,3]", groups=2),
            error("number of dimensions", "f32[B,3,3]", "f32[2,2,3,1]"),
            error("stride is not valid", "f32[B,3,3,1]", "f32[2,2,1,1]", stride=(0, 1)),
            error("stride is not valid", "f32[B,3,3,1]", "f32[2,2,1,1]", stride=2),
            error("padding is not valid", "f32[B,3,3,1]", "f32[2,2,1,1]", padding=((-1, 0), (0, 0))),
            error("cannot be the batch", "f32[2,B,3,1]", "f32[2,2,1,1]"),
            error("padding is not valid", "f32[B,3,3,1]", "f32[2,2,1,1]", padding=(1, 1)),
            error("groups is not valid", "f32[B,3,3,1]", "f32[2,2,1,1]", groups=0),
            error("differ in dtype", "f32[B,3,3,1]", "f64[2,2,1,1]"),
            error("dtype", "i32[B,3,3,1]", "i32[2,2,1,1]"),
            error("operands", "f32[B,3,3,1]"),
        ),
    ),
    Op(
        "conv2d_input_grad",  # dy, w -> dx
        infer=infer_input_grad,
        gradient=equation(
            lambda builder, ddx, dx, dy, w: [
                builder.conv2d(ddx, w, **window_of(dx)),
                builder.conv2d_filter_grad(ddx, dy, kernel=w.type.shape[:2], **window_of(dx)),
            ]
        ),
        reference=input_grad,
        attributes={"input_size": REQUIRED, **GROUPED},
        traits=IMAGE_CONVOLUTION,
        cost=lambda operands, results, batch: cost(operands[0], operands[1], batch),
        samples=(
            sample("f32[1,1,1,1]", "f32[1,1,1,1]", input_size=(1, 1)),
            sample("f32[B,2,2,3]", "f32[3,3,2,3]", input_size=(4, 4)),
            sample("f32[B,2,3,2]", "f32[3,2,2,2]", input_size=(5, 4), stride=(2, 1)),
            sample("f32[B,2,2,1]", "f32[2,2,1,1]", input_size=(5, 5), stride=(3, 2)),
            sample("f64[2,3,3,1]", "f64[3,3,2,1]", input_size=(3, 3), padding=((1, 1), (1, 1))),
            sample("f32[B,2,2,1]", "f32[2,3,1,1]", input_size=(5, 6), dilation=(3, 2)),
            sample("f32[2,2,2,6]", "f32[2,2,2,6]", input_size=(3, 3), groups=2),
            sample("f32[0,2,2,1]", "f32[2,2,1,1]", input_size=(3, 3)),
            sample("f32[2,3,2,2]", "f32[1,1,1,2]", input_size=(0, 2), padding=((1, 2), (0, 0))),
            sample("f32[2,3,3,2]", "f32[2,2,2,2]", input_size=(6, 5), **ALL_AT_ONCE),
        ),
        errors=(
            error("shape of the convolution", "f32[B,2,2,3]", "f32[3,3,2,3]", input_size=(5, 5)),
            error("shape of the convolution", "f32[B,2,2,2]", "f32[3,3,2,3]", input_size=(4, 4)),
            error("window is larger", "f32[B,2,2,3]", "f32[3,3,2,3]", input_size=(2, 2)),
            error("input size is not valid", "f32[B,2,2,3]", "f32[3,3,2,3]", input_size=(4,)),
            error("number of dimensions", "f32[B,2,2,3]", "f32[3,3,2]", input_size=(4, 4)),
            error("operands", "f32[B,2,2,3]", input_size=(4, 4)),
        ),
    ),
    Op(
        "conv2d_filter_grad",  # x, dy -> dw
        infer=infer_filter_grad,
        gradient=equation(
            lambda builder, ddw, dw, x, dy: [
                builder.conv2d_input_grad(dy, ddw, input_size=x.type.shape[1:3], **window_of(dw)),
                builder.conv2d(x, ddw, **window_of(dw)),
            ]
        ),
        reference=filter_grad,
        attributes={"kernel": REQUIRED, **GROUPED},
        traits=frozenset({PRODUCT, CONVOLUTION}),
        cost=lambda operands, results, batch: cost(operands[1], results[0], batch),
        samples=(
            sample("f32[1,1,1,1]", "f32[1,1,1,1]", kernel=(1, 1)),
            sample("f32[B,4,4,2]", "f32[B,2,2,3]", kernel=(3, 3)),
            sample("f32[B,5,4,2]", "f32[B,2,3,2]", kernel=(3, 2), stride=(2, 1)),
            sample("f32[B,5,5,1]", "f32[B,2,2,1]", kernel=(2, 2), stride=(3, 2)),
            sample("f64[2,3,3,2]", "f64[2,3,3,1]", kernel=(3, 3), padding=((1, 1), (1, 1))),
            sample("f32[B,5,6,1]", "f32[B,2,2,1]", kernel=(2, 3), dilation=(3, 2)),
            sample("f32[2,3,3,4]", "f32[2,2,2,6]", kernel=(2, 2), groups=2),
            sample("f32[0,3,3,1]", "f32[0,2,2,1]", kernel=(2, 2)),
            sample("f32[2,0,2,1]", "f32[2,3,2,2]", kernel=(1, 1), padding=((1, 2), (0, 0))),
            sample("f32[2,6,5,4]", "f32[2,3,3,2]", kernel=(2, 2), **ALL_AT_ONCE),
        ),
        errors=(
            error("shape of the convolution", "f32[B,4,4,2]", "f32[B,3,3,3]", kernel=(3, 3)),
            error("shape of the convolution", "f32[B,4,4,2]", "f32[3,2,2,3]", kernel=(3, 3)),
            error("divide into groups", "f32[B,4,4,3]", "f32[B,2,2,2]", kernel=(3, 3), groups=2),
            error("kernel is not valid", "f32[B,4,4,2]", "f32[B,2,2,3]", kernel=(3, 0)),
            error("number of dimensions", "f32[B,4,4]", "f32[B,2,2,3]", kernel=(3, 3)),
            error("operands", "f32[B,4,4,2]", kernel=(3, 3)),
        ),
    ),
)
