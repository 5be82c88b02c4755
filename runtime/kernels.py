"""What generated NumPy code calls where one ufunc is not enough.

Images are [N, H, W, C]; `out` is written and never read; `scratch` is space of the caller's for the time of the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial, wraps
from itertools import pairwise
from typing import Any

import numpy as np

from runtime.random import draw, fill_uniform
from runtime.threads import parts, together

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
# With less for each thread, one is done before another has started.
MANY_PIXELS = 50_000
LARGE_PRODUCT = 4_000_000  # multiplications


def view(arena: np.ndarray, offset: int, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """The array at a byte offset of the arena."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return arena[offset : offset + size].view(dtype).reshape(shape)


def steps(*stacks: np.ndarray, reverse: bool) -> list[tuple[np.ndarray, ...]]:
    """For each index of the first axis, the views of all stacks there."""
    order = range(len(stacks[0]))
    return [tuple(stack[t, ...] for stack in stacks) for t in (reversed(order) if reverse else order)]


def erf(x: np.ndarray, out: np.ndarray) -> None:
    """The error function: a rational approximation with 3e-7 absolute error (Eigen's, after Cody), odd and clamped."""
    clamped = np.clip(x, -3.8, 3.8)
    square = clamped * clamped
    above = polynomial(square, ERF_NUMERATOR)
    below = polynomial(square, ERF_DENOMINATOR)
    np.divide(clamped * above, below, out=out)


ERF_NUMERATOR = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
    -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
ERF_DENOMINATOR = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02,
)  # fmt: skip


def polynomial(x: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """Horner's rule, highest power first."""
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += coefficient
    return value


def clip(x: np.ndarray, out: np.ndarray, low: float, high: float) -> None:
    """x limited to [low, high]."""
    np.clip(x, low, high, out=out)


def select_or_zero(condition: np.ndarray, x: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """x where the condition holds, 0 elsewhere, whatever x is there: keeps or clears the bits of each float32.

    A masked copy would branch at every element, which costs 20 times as much on a mask without pattern.
    """
    mask = scratch.view(np.int32)
    np.negative(condition.view(np.int8), out=mask, casting="unsafe")
    np.bitwise_and(x.view(np.int32), mask, out=out.view(np.int32))


def sum_rows(x: np.ndarray, out: np.ndarray) -> None:
    """The sum over all axes but the last, as a product with ones: up to ten times as fast as `np.sum`."""
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    lying = x.transpose(order)  # as it lies in memory
    if order[0] == x.ndim - 1:
        rows = lying.reshape(len(lying), -1)
        np.matmul(rows, ones(rows.shape[1], x.dtype), out=out)
    elif order[-1] == x.ndim - 1:
        rows = lying.reshape(-1, x.shape[-1])
        np.matmul(ones(len(rows), x.dtype), rows, out=out)
    else:
        np.sum(x, axis=tuple(range(x.ndim - 1)), out=out)


def sum_of_products(a: np.ndarray, b: np.ndarray, out: np.ndarray, axes: tuple[int, ...]) -> None:
    """sum(a * b) over axes, without the product: where the last axis stays and lies outermost, as dot products."""
    outermost = a.ndim > 1 and all(a.strides[-1] >= stride for stride in a.strides) and a.strides == b.strides
    if outermost and axes == tuple(range(a.ndim - 1)) and a.size:
        rows = [x.transpose(*reversed(range(a.ndim))).reshape(len(out), -1) for x in (a, b)]
        np.matmul(rows[0][:, None, :], rows[1][:, :, None], out=out[:, None, None])
    else:
        left = [axis for axis in range(a.ndim) if axis not in axes]
        np.einsum(a, range(a.ndim), b, range(a.ndim), left, out=out)


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """a @ b, or a stack of such products; a large product is divided along the longer side of the result.

    A matrix of a stack with no axis in one piece is copied, since BLAS cannot read it.
    """
    if a.ndim > 2 or b.ndim > 2:
        a, b = (x if x.itemsize in x.strides[-2:] else np.ascontiguousarray(x) for x in (a, b))
    rows, columns = out.shape[-2:]
    count = parts(out.size * a.shape[-1] // LARGE_PRODUCT)
    if count == 1:
        np.matmul(a, b, out=out)
    elif rows >= columns:
        cuts = pairwise(rows * i // count for i in range(count + 1))
        together(*(partial(np.matmul, a[..., i:j, :], b, out=out[..., i:j, :]) for i, j in cuts))
    else:
        cuts = pairwise(columns * i // count for i in range(count + 1))
        together(*(partial(np.matmul, a, b[..., i:j], out=out[..., i:j]) for i, j in cuts))


@cache
def ones(count: int, dtype: np.dtype) -> np.ndarray:
    return np.ones(count, dtype)


def random(seed: np.ndarray, step: np.ndarray, out: np.ndarray, distribution: str, stream: int) -> None:
    """Numbers that depend on (seed, step, stream) alone."""
    if distribution == "uniform":
        fill_uniform(out, int(seed), int(step), stream)
    else:
        out[...] = draw(int(seed), int(step), stream, out.shape, distribution)


def orthogonalize(x: np.ndarray, out: np.ndarray) -> None:
    """Orthonormal rows or columns, whichever are fewer, by QR with positive diagonal of R."""
    tall = x if x.shape[0] >= x.shape[1] else x.T
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diag(r) < 0, -1, 1)
    out[...] = q if tall is x else q.T


def scatter_add(indices: np.ndarray, updates: np.ndarray, out: np.ndarray) -> None:
    """Adds each row of `updates` to the row of `out` that its index names."""
    out.fill(0)
    np.add.at(out, indices, updates)


# Windows over images --------------------------------------------------------------------------------------------------


def by_channels(kernel: Callable[..., None]) -> Callable[..., None]:
    """Runs a kernel on parts of the channels at the same time: they have nothing to do with each other.

    Channels are the last axis of every array; where there are m outputs to a channel, the first array has it single.
    """

    @wraps(kernel)
    def split(*arrays: np.ndarray, **settings: Any) -> None:
        outputs = {name: settings[name] for name in ("out", "scratch") if name in settings}
        channels = arrays[0].shape[-1]
        count = parts(min(channels, arrays[0].size // MANY_PIXELS))
        bounds = [channels * i // count for i in range(count + 1)]

        def part(first: int, last: int) -> None:
            def take(array: np.ndarray) -> np.ndarray:
                multiple = array.shape[-1] // channels
                return array[..., first * multiple : last * multiple]

            kernel(*map(take, arrays), **{**settings, **{name: take(array) for name, array in outputs.items()}})

        if count == 1:
            kernel(*arrays, **settings)
        else:
            together(*(partial(part, first, last) for first, last in pairwise(bounds)))

    return split


def padded(x: np.ndarray, padding: Padding, value: float = 0) -> np.ndarray:
    """A larger copy, or x itself where there is no padding."""
    return x if padding == ((0, 0), (0, 0)) else np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def tap_views(
    images: np.ndarray, kernel: Pair, stride: Pair, dilation: Pair, size: Pair
) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each tap (i, j) of a window, the pixels [N, *size, C] that it meets."""
    for i in range(kernel[0]):
        rows = slice(i * dilation[0], i * dilation[0] + (size[0] - 1) * stride[0] + 1, stride[0])
        for j in range(kernel[1]):
            columns = slice(j * dilation[1], j * dilation[1] + (size[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, images[:, rows, columns]


@by_channels
def patches(x: np.ndarray, out: np.ndarray, stride: Pair, padding: Padding, dilation: Pair) -> None:
    """im2col: out[N, OH, OW, kh, kw, C]."""
    source = padded(x, padding)
    if source.strides[0] > source.strides[1]:  # batch first, as data come: turned once instead of at every tap
        source = np.ascontiguousarray(source.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    n, h, w, c = source.strides
    strides = (n, h * stride[0], w * stride[1], h * dilation[0], w * dilation[1], c)
    np.copyto(out, np.lib.stride_tricks.as_strided(source, out.shape, strides, writeable=False))


@by_channels
def fold(parts: np.ndarray, out: np.ndarray, stride: Pair, padding: Padding, dilation: Pair) -> None:
    """The adjoint of `patches`: adds every window back to the pixels it came from."""
    whole = padded(out, padding)
    whole.fill(0)
    for i, j, pixels in tap_views(whole, parts.shape[3:5], stride, dilation, parts.shape[1:3]):
        pixels += parts[:, :, :, i, j]
    crop(whole, out, padding)


@by_channels
def depthwise_conv2d(
    x: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Pair, padding: Padding, dilation: Pair, scratch: np.ndarray
) -> None:
    """One filter bank w[kh, kw, 1, C * m] per input channel; `scratch` is of the shape of `out`."""
    filters, y, product = (by_channel(array, x.shape[3]) for array in (w, out, scratch))
    y.fill(0)
    for i, j, pixels in tap_views(padded(x, padding), w.shape[:2], stride, dilation, out.shape[1:3]):
        np.multiply(pixels[..., None], filters[i, j, 0], out=product)
        y += product


@by_channels
def depthwise_conv2d_input_grad(
    dy: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Pair, padding: Padding, dilation: Pair, scratch: np.ndarray
) -> None:
    """The adjoint in x; `scratch` is of the shape of `dy`."""
    filters, gradient, product = (by_channel(array, out.shape[3]) for array in (w, dy, scratch))
    whole = padded(out, padding)
    whole.fill(0)
    for i, j, pixels in tap_views(whole, w.shape[:2], stride, dilation, dy.shape[1:3]):
        np.multiply(gradient, filters[i, j, 0], out=product)
        for k in range(product.shape[-1]):
            pixels += product[..., k]
    crop(whole, out, padding)


@by_channels
def depthwise_conv2d_filter_grad(
    x: np.ndarray, dy: np.ndarray, out: np.ndarray, stride: Pair, padding: Padding, dilation: Pair, scratch: np.ndarray
) -> None:
    """The adjoint in w; `scratch` is of the shape of `dy`."""
    gradient, product = (by_channel(array, x.shape[3]) for array in (dy, scratch))
    for i, j, pixels in tap_views(padded(x, padding), out.shape[:2], stride, dilation, dy.shape[1:3]):
        np.multiply(pixels[..., None], gradient, out=product)
        sum_rows(scratch, out=out[i, j, 0])


def by_channel(images: np.ndarray, channels: int) -> np.ndarray:
    """[…, C * m] as […, C, m]; for a filter bank [kh, kw, 1, C, m]."""
    return images.reshape(*images.shape[:-1], channels, -1)


@by_channels
def max_pool2d(x: np.ndarray, out: np.ndarray, window: Pair, stride: Pair, padding: Padding) -> None:
    out.fill(-np.inf)
    for _, _, pixels in tap_views(padded(x, padding, -np.inf), window, stride, (1, 1), out.shape[1:3]):
        np.maximum(out, pixels, out=out)


@by_channels
def max_pool2d_grad(
    x: np.ndarray, dy: np.ndarray, out: np.ndarray, window: Pair, stride: Pair, padding: Padding, scratch: np.ndarray
) -> None:
    """Each window's gradient goes to the first of its largest pixels; `scratch` holds kh * kw + 3 arrays like `dy`."""
    *pixels, largest, free, here = scratch
    bits = f"i{dy.itemsize}"
    free, here, gradient = (array.view(bits) for array in (free, here, dy))
    # The pixels of each tap side by side: the comparisons below then run over long rows.
    for copy, (_, _, seen) in zip(
        pixels, tap_views(padded(x, padding, -np.inf), window, stride, (1, 1), dy.shape[1:3]), strict=True
    ):
        np.copyto(copy, seen)
    np.max(scratch[: len(pixels)], axis=0, out=largest)
    free.fill(-1)
    whole = padded(out, padding)
    whole.fill(0)
    for copy, (_, _, target) in zip(pixels, tap_views(whole, window, stride, (1, 1), dy.shape[1:3]), strict=True):
        np.equal(copy, largest, out=here)
        np.negative(here, out=here)
        here &= free
        free ^= here
        here &= gradient  # its bits where this pixel is the first maximum, else 0.0
        target += here.view(dy.dtype)
    crop(whole, out, padding)


def crop(whole: np.ndarray, out: np.ndarray, padding: Padding) -> None:
    """Takes the padding off, where there was any."""
    if whole is not out:
        (top, _), (left, _) = padding
        np.copyto(out, whole[:, top : top + out.shape[1], left : left + out.shape[2]])
