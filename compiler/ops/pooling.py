"""Windows over images, channels last: max pooling, and `patches` with its adjoint `fold`.

x [N, H, W, C]   max_pool2d(x) [N, OH, OW, C]   patches(x) [N, OH, OW, kh, kw, C]

Max pooling has two forms. Models and autodiff use max_pool2d(x) and max_pool2d_grad(x, dy), which searches for the
maxima again. A pass turns these into max_pool2d_with_index(x), whose second result is the number of the tap where each
maximum is, and max_pool2d_route(index, dy), which does not need x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Node, Value
from compiler.ir.op import IMAGES, REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import FLOATS, NUMPY_NAMES, TensorType, TypeRuleError, show_shape
from compiler.ops.rules import (
    equation,
    expect_dtype,
    expect_integers,
    expect_rank,
    expect_same_dtype,
    expect_static,
    per_operand,
    per_result,
    show_attribute,
)
from compiler.ops.windows import (
    NO_PADDING,
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


def infer_max_pool2d(types: Sequence[TensorType], window: Pair, stride: Pair, padding: Padding) -> TensorType:
    expect_count(types, 1)
    x = types[0]
    expect_dtype(x, FLOATS)
    expect_rank(x, 4, "the image")
    output = output_size(x.shape[1:3], window, stride, padding)
    size = expect_static(x.shape[1:3], "the height or width of an image")
    for extent, reach, step, (before, _), count in zip(size, window, stride, padding, output, strict=True):
        if before >= reach or (count - 1) * step - before >= extent:
            found = show_attribute(padding)
            raise TypeRuleError("a pooling window is entirely in the padding", f"padding below {reach}", found)
    return x.with_shape((x.shape[0], *output, x.shape[3]))


def infer_max_pool2d_grad(types: Sequence[TensorType], window: Pair, stride: Pair, padding: Padding) -> TensorType:
    expect_count(types, 2)
    expect_same_dtype(types)
    expect_gradient(infer_max_pool2d(types[:1], window, stride, padding), types[1], "pooling")
    return types[0]


def infer_max_pool2d_with_index(types: Sequence[TensorType], window: Pair, **steps: Any) -> Sequence[TensorType]:
    y = infer_max_pool2d(types, window, **steps)
    return [y, y.with_dtype(index_dtype(window))]


def infer_max_pool2d_route(types: Sequence[TensorType], input_size: Pair, window: Pair, **steps: Any) -> TensorType:
    expect_count(types, 2)
    index, dy = types
    expect_dtype(dy, FLOATS, "the gradient")
    expect_rank(dy, 4, "the gradient")
    expect_integers("input size", input_size, 2)
    batch, *_, channels = dy.shape
    x = dy.with_shape((batch, *input_size, channels))
    expect_gradient(infer_max_pool2d([x], window, **steps), dy, "pooling")
    expect_dtype(index, (index_dtype(window),), "the index")
    if index.shape != dy.shape:
        raise TypeRuleError("index and gradient differ in shape", show_shape(dy.shape), show_shape(index.shape))
    return x


def index_dtype(window: Pair) -> str:
    """The dtype of tap numbers of a window."""
    return "u8" if window[0] * window[1] <= 256 else "i32"


def max_pool2d(x: np.ndarray, window: Pair, stride: Pair, padding: Padding) -> np.ndarray:
    return stacked_windows(x, window, stride, padding).max(0)


def max_pool2d_grad(x: np.ndarray, dy: np.ndarray, window: Pair, stride: Pair, padding: Padding) -> np.ndarray:
    first = stacked_windows(x, window, stride, padding).argmax(0)
    return max_pool2d_route(first, dy, x.shape[1:3], window, stride, padding)


def max_pool2d_with_index(x: np.ndarray, window: Pair, stride: Pair, padding: Padding) -> list[np.ndarray]:
    seen = stacked_windows(x, window, stride, padding)
    return [seen.max(0), seen.argmax(0).astype(NUMPY_NAMES[index_dtype(window)])]


def max_pool2d_route(
    index: np.ndarray, dy: np.ndarray, input_size: Sequence[int], window: Pair, stride: Pair, padding: Padding
) -> np.ndarray:
    dx = pad_images(np.zeros((len(dy), *input_size, dy.shape[3])), padding)
    for i, j, seen in taps(dx, window, stride, dy.shape[1:3]):
        seen += np.where(index == i * window[1] + j, dy, 0.0)
    return crop_images(dx, padding)


def stacked_windows(x: np.ndarray, window: Pair, stride: Pair, padding: Padding) -> np.ndarray:
    """[kh * kw, N, OH, OW, C], the elements of each window in row-major order."""
    output = output_size(x.shape[1:3], window, stride, padding)
    return np.stack([seen for _, _, seen in taps(pad_images(x, padding, -np.inf), window, stride, output)])


def read_at_maximum(builder: Builder, node: Node, ddx: Value) -> list[Value | None]:
    """The gradient of max_pool2d_grad: ddx at the first maximum of each window; x only determines the place."""
    return [
        None,
        read_at(builder, node, builder.argmax(windows(builder, node, node.operands[0], float("-inf")), axis=3), ddx),
    ]


def read_at_index(builder: Builder, node: Node, ddx: Value) -> list[Value | None]:
    """The gradient of max_pool2d_route: ddx at the place given by the index."""
    return [None, read_at(builder, node, builder.cast(node.operands[0], dtype="i32"), ddx)]


def read_at(builder: Builder, node: Node, index: Value, ddx: Value) -> Value:
    """ddx at the tap of each window given by an index [N, OH, OW, C], 0 in the padding."""
    parts = windows(builder, node, ddx, 0.0)
    index = builder.reshape(index, shape=(*index.type.shape[:3], 1, index.type.shape[3]))
    numbers = builder.reshape(builder.iota(size=parts.type.shape[3]), shape=(parts.type.shape[3], 1))
    return builder.sum(builder.select(builder.eq(index, numbers), parts, 0.0), axes=(3,))


def windows(builder: Builder, node: Node, image: Value, padding_value: float) -> Value:
    """The elements that the windows of a node cover, [N, OH, OW, kh * kw, C]."""
    (kh, kw), ((top, bottom), (left, right)) = node.attributes["window"], node.attributes["padding"]
    image = builder.pad(image, low=(0, top, left, 0), high=(0, bottom, right, 0), value=padding_value)
    parts = builder.patches(image, window=(kh, kw), stride=node.attributes["stride"])
    return builder.reshape(parts, shape=(*parts.type.shape[:3], kh * kw, parts.type.shape[5]))


def infer_patches(
    types: Sequence[TensorType], window: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> TensorType:
    expect_count(types, 1)
    expect_dtype(types[0], FLOATS)
    expect_rank(types[0], 4, "the image")
    batch, *size, channels = types[0].shape
    return types[0].with_shape((batch, *output_size(size, window, stride, padding, dilation), *window, channels))


def infer_fold(types: Sequence[TensorType], input_size: Pair, **window: Any) -> TensorType:
    expect_count(types, 1)
    expect_rank(types[0], 6, "the stack of patches")
    expect_integers("input size", input_size, 2)
    batch, *_, channels = types[0].shape
    kernel = expect_static(types[0].shape[3:5], "the window of the patches")
    x = types[0].with_shape((batch, *input_size, channels))
    expected = infer_patches([x], kernel, **window)  # type: ignore[arg-type]
    if expected != types[0]:
        raise TypeRuleError("the patches do not fit the image", str(expected), str(types[0]))
    return x


def patches(x: np.ndarray, window: Pair, stride: Pair, padding: Padding, dilation: Pair) -> np.ndarray:
    output = output_size(x.shape[1:3], window, stride, padding, dilation)
    result = np.zeros((len(x), *output, *window, x.shape[3]))
    for i, j, seen in taps(pad_images(x, padding), window, stride, output, dilation):
        result[:, :, :, i, j] = seen
    return result


def fold(parts: np.ndarray, input_size: Pair, stride: Pair, padding: Padding, dilation: Pair) -> np.ndarray:
    x = pad_images(np.zeros((len(parts), *input_size, parts.shape[5])), padding)
    for i, j, seen in taps(x, parts.shape[3:5], stride, parts.shape[1:3], dilation):
        seen += parts[:, :, :, i, j]
    return crop_images(x, padding)


POOLING = {"window": REQUIRED, "stride": REQUIRED, "padding": NO_PADDING}
# For samples
HALF = {"window": (2, 2), "stride": (2, 2)}
DENSE = {"window": (2, 2), "stride": (1, 1)}
POOLED = (
    sample("f32[1,1,1,1]", window=(1, 1), stride=(1, 1)),
    sample("f32[B,4,4,2]", **HALF),
    sample("f32[B,5,4,1]", window=(3, 2), stride=(2, 2)),
    sample("f64[2,3,3,1]", **DENSE),
    sample("f32[0,4,4,1]", **HALF),
)
POOLING_ERRORS = (
    error("window is larger", "f32[B,3,3,1]", window=(4, 1), stride=(1, 1)),
    error("entirely in the padding", "f32[B,3,3,1]", **DENSE, padding=((2, 0), (0, 0))),
    error("operands", **DENSE),
    error("needs", "f32[B,3,3,1]", window=(2, 2)),
)

OPS = (
    Op(
        "max_pool2d",  # the padding counts as -inf
        infer=infer_max_pool2d,
        gradient=equation(lambda builder, dy, y, x: [builder.max_pool2d_grad(x, dy, **y.node.attributes)]),
        reference=max_pool2d,
        attributes=POOLING,
        traits=frozenset({IMAGES}),
        cost=per_operand,
        samples=(
            *POOLED,
            sample("f32[2,4,5,2]", window=(1, 2), stride=(3, 1)),
            sample("f32[B,3,3,1]", **HALF, padding=((1, 0), (0, 1))),
            sample("f32[B,4,4,1]", window=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1))),
            sample("f32[2,3,2,3]", window=(3, 2), stride=(1, 1)),
            sample("f32[1,1,1,2]", **DENSE, padding=((1, 1), (1, 1))),
        ),
        errors=(
            *POOLING_ERRORS,
            error("entirely in the padding", "f32[B,3,3,1]", **DENSE, padding=((0, 0), (0, 2))),
            error("window is not valid", "f32[B,3,3,1]", window=(2, 0), stride=(1, 1)),
            error("stride is not valid", "f32[B,3,3,1]", window=(2, 2), stride=(0, 1)),
            error("number of dimensions", "f32[B,3,3]", **DENSE),
            error("dtype", "i32[B,3,3,1]", **DENSE),
        ),
    ),
    Op(
        "max_pool2d_grad",  # x, dy -> dx, at the first maximum of each window in row-major order
        infer=infer_max_pool2d_grad,
        gradient=read_at_maximum,
        reference=max_pool2d_grad,
        attributes=POOLING,
        traits=frozenset({IMAGES}),
        cost=per_result,
        samples=(
            sample("f32[1,1,1,1]", "f32[1,1,1,1]", window=(1, 1), stride=(1, 1)),
            sample("f32[B,4,4,2]", "f32[B,2,2,2]", **HALF),
            sample("f32[B,5,4,1]", "f32[B,2,2,1]", window=(3, 2), stride=(2, 2)),
            sample("f64[2,3,3,1]", "f64[2,2,2,1]", **DENSE),
            sample("f32[B,3,3,1] -3..-1", "f32[B,2,2,1]", **HALF, padding=((1, 0), (0, 1))),
            sample("f32[0,4,4,1]", "f32[0,2,2,1]", **HALF),
        ),
        errors=(
            error("shape of the pooling", "f32[B,4,4,2]", "f32[B,3,3,2]", **HALF),
            error("differ in dtype", "f32[B,4,4,2]", "f64[B,2,2,2]", **HALF),
            error("operands", "f32[B,4,4,2]", **HALF),
        ),
    ),
    Op(
        "max_pool2d_with_index",  # x -> y, and the number of the tap with the first maximum, in row-major order
        infer=infer_max_pool2d_with_index,
        gradient=lambda builder, node, dy, _: [
            dy
            and builder.max_pool2d_route(
                node.results[1], dy, input_size=node.operands[0].type.shape[1:3], **node.attributes
            )
        ],
        reference=max_pool2d_with_index,
        attributes=POOLING,
        traits=frozenset({IMAGES}),
        cost=per_operand,
        samples=(
            *POOLED,
            sample("f32[B,3,3,1] -3..-1", **HALF, padding=((1, 0), (0, 1))),
            sample("f32[1,18,17,2]", window=(17, 16), stride=(1, 1)),
        ),
        errors=POOLING_ERRORS,
    ),
    Op(
        "max_pool2d_route",  # index, dy -> dx: the gradient of each window goes to the tap with that number
        infer=infer_max_pool2d_route,
        gradient=read_at_index,
        reference=max_pool2d_route,
        attributes={"input_size": REQUIRED, **POOLING},
        traits=frozenset({IMAGES}),
        samples=(
            sample("u8[1,1,1,1] 0..0", "f32[1,1,1,1]", input_size=(1, 1), window=(1, 1), stride=(1, 1)),
            sample("u8[B,2,2,2] 0..3", "f32[B,2,2,2]", input_size=(4, 4), **HALF),
            sample("u8[B,2,2,1] 0..5", "f32[B,2,2,1]", input_size=(5, 4), window=(3, 2), stride=(2, 2)),
            sample("u8[2,2,2,1] 0..3", "f64[2,2,2,1]", input_size=(3, 3), **DENSE),
            sample("u8[B,2,1,2] 0..1", "f32[B,2,1,2]", input_size=(4, 5), window=(1, 2), stride=(3, 4)),
            sample("u8[B,2,2,1] 0..3", "f32[B,2,2,1]", input_size=(3, 3), **HALF, padding=((1, 0), (0, 1))),
            sample("u8[0,2,2,1] 0..3", "f32[0,2,2,1]", input_size=(4, 4), **HALF),
            sample("i32[1,2,2,1] 0..271", "f32[1,2,2,1]", input_size=(18, 17), window=(17, 16), stride=(1, 1)),
        ),
        errors=(
            error("shape of the pooling", "u8[B,2,2,2]", "f32[B,2,2,2]", input_size=(9, 4), **HALF),
            error("differ in shape", "u8[B,2,2,1]", "f32[B,2,2,2]", input_size=(4, 4), **HALF),
            error("the index has the wrong", "i32[B,2,2,1]", "f32[B,2,2,1]", input_size=(4, 4), **HALF),
            error("input size is not valid", "u8[B,2,2,1]", "f32[B,2,2,1]", input_size=(4, -1), **HALF),
            error("dtype", "u8[B,2,2,1]", "i32[B,2,2,1]", input_size=(4, 4), **HALF),
            error("number of dimensions", "u8[B,2,2]", "f32[B,2,2]", input_size=(4, 4), **HALF),
            error("operands", "f32[B,2,2,1]", input_size=(4, 4), **HALF),
            error("needs", "u8[B,2,2,1]", "f32[B,2,2,1]", **HALF),
        ),
    ),
    Op(
        "patches",  # the elements of each window, zeros in the padding
        infer=infer_patches,
        gradient=equation(lambda builder, dy, y, x: [builder.fold(dy, input_size=x.type.shape[1:3], **window_of(y))]),
        reference=patches,
        attributes={"window": REQUIRED, **WINDOW},
        samples=(
            sample("f32[1,1,1,1]", window=(1, 1)),
            sample("f32[B,4,4,2]", window=(2, 2)),
            sample("f32[B,4,5,1]", window=(2, 3), stride=(2, 1)),
            sample("f64[2,3,3,1]", window=(2, 2), padding=((1, 0), (0, 2))),
            sample("f32[B,5,6,1]", window=(2, 3), dilation=(3, 2)),
            sample("f32[2,6,5,2]", **HALF, padding=((1, 0), (0, 2)), dilation=(2, 1)),
            sample("f32[0,3,3,1]", window=(2, 2)),
        ),
        errors=(
            error("window is larger", "f32[B,3,3,1]", window=(4, 1)),
            error("dilation is not valid", "f32[B,3,3,1]", window=(2, 2), dilation=(0, 1)),
            error("number of dimensions", "f32[B,3,3]", window=(2, 2)),
            error("dtype", "u8[B,3,3,1]", window=(2, 2)),
            error("operands", window=(2, 2)),
        ),
    ),
    Op(
        "fold",  # the adjoint of patches: adds every patch back in its place
        infer=infer_fold,
        gradient=equation(
            lambda builder, dx, x, parts: [builder.patches(dx, window=parts.type.shape[3:5], **window_of(x))]
        ),
        reference=fold,
        attributes={"input_size": REQUIRED, **WINDOW},
        traits=frozenset({IMAGES}),
        cost=per_operand,
        samples=(
            sample("f32[1,1,1,1,1,1]", input_size=(1, 1)),
            sample("f32[B,3,3,2,2,2]", input_size=(4, 4)),
            sample("f32[B,2,3,2,3,1]", input_size=(4, 5), stride=(2, 1)),
            sample("f64[2,3,4,2,2,1]", input_size=(3, 3), padding=((1, 0), (0, 2))),
            sample("f32[B,2,2,2,3,1]", input_size=(5, 6), dilation=(3, 2)),
            sample("f32[0,2,2,2,2,1]", input_size=(3, 3)),
            sample("f32[B,2,2,2,2,1]", input_size=(5, 5), stride=(2, 2)),
        ),
        errors=(
            error("do not fit", "f32[B,3,3,2,2,2]", input_size=(5, 5)),
            error("window is larger", "f32[B,3,3,2,2,2]", input_size=(1, 1)),
            error("input size is not valid", "f32[B,3,3,2,2,2]", input_size=(4, -1)),
            error("number of dimensions", "f32[B,3,3,2,2]", input_size=(4, 4)),
            error("operands", input_size=(4, 4)),
        ),
    ),
)
