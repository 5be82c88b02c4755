"""Depthwise convolution over images without padding and its two adjoints: every channel has separate filters.

x [N, H, W, C]   w [kh, kw, 1, C * m]   y [N, OH, OW, C * m]   in memory as [C, H, W, N] and [C * m, OH, OW, N]

A row of y depends on a band of rows of x, and every row in the same way: y[p] = M @ x[p * stride : p * stride + reach]
with M[q, i, j + q * stride] = w[i, j], a matrix [OW, reach * W] for each filter. Most of it is zero, but one product is
faster than a multiplication and a sum of whole images for each tap, unless images are wide: the kernels `…_by_taps` are
for those.
"""

from __future__ import annotations

import numpy as np

from runtime.cpu.kernels.products import SMALL_TRANSPOSED
from runtime.cpu.kernels.windows import NO_PADDING, Size, by_channels, strided, taps

MOST_IMAGES = 128  # at a time, in the scratch space of the gradient of x
MOST_WASTE = 20  # multiplications of a product in the time of one multiplication and sum of whole images


def bands_pay(width: int, window: Size, dilation: Size) -> bool:
    """Whether bands are faster than taps, for images of this width."""
    return reach(window, dilation) * width <= MOST_WASTE * window[0] * window[1]


def bands_pay_for_filters(columns: int, width: int, window: Size, dilation: Size) -> bool:
    """The same for the gradient of w: its products must be small (see products.py)."""
    return columns * reach(window, dilation) * width <= SMALL_TRANSPOSED


def reach(window: Size, dilation: Size) -> int:
    """The number of rows of a band."""
    return (window[0] - 1) * dilation[0] + 1


@by_channels
def depthwise_conv2d(
    x: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """y = M @ bands of x. `scratch` [m * OW * reach * W, C], contiguous for each channel."""
    channels = x.shape[3]
    y = by_channel(out, channels).transpose(3, 4, 1, 2, 0)
    matrix = filter_matrix(scratch.T, w, x.shape, y.shape, stride, dilation)
    np.matmul(matrix[:, :, None], bands(x, matrix, y.shape[2], stride)[:, None], out=y)


@by_channels
def depthwise_conv2d_input_grad(
    dy: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """dx: adds Mᵀ @ dy[p] to the band of p. `scratch` [m * OW * reach * W + reach * W * MOST_IMAGES, C]."""
    channels = out.shape[3]
    y, dx = by_channel(dy, channels).transpose(3, 4, 1, 2, 0), out.transpose(3, 1, 2, 0)
    matrix = filter_matrix(scratch.T, w, out.shape, y.shape, stride, dilation)
    room = scratch.T[:, matrix[0].size :]
    out.fill(0)
    for first in range(0, y.shape[4], MOST_IMAGES):
        some, pixels = y[..., first : first + MOST_IMAGES], dx[..., first : first + MOST_IMAGES]
        band = room[:, : matrix.shape[3] * some.shape[4]].reshape(channels, -1, dx.shape[2], some.shape[4])
        for filter, p in np.ndindex(y.shape[1:3]):
            rows = pixels[:, p * stride[0] : p * stride[0] + band.shape[1]]
            np.matmul(
                matrix[:, filter].swapaxes(1, 2), some[:, filter, p], out=band.reshape(channels, -1, some.shape[4])
            )
            np.add(rows, band, out=rows)


@by_channels
def depthwise_conv2d_filter_grad(
    x: np.ndarray, dy: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """dM = the sum of dy[p] @ bandᵀ, and dw the sums along its diagonals. `scratch` [2 * m * OW * reach * W, C]."""
    channels = x.shape[3]
    y = by_channel(dy, channels).transpose(3, 4, 1, 2, 0)
    matrix, diagonals = band_matrix(scratch.T, out.shape, x.shape, y.shape, stride, dilation)
    extra, _ = band_matrix(scratch.T[:, matrix[0].size :], out.shape, x.shape, y.shape, stride, dilation)
    matrix.fill(0)
    for p, band in enumerate(bands(x, matrix, y.shape[2], stride).swapaxes(0, 1)):
        np.matmul(y[:, :, p], band.swapaxes(1, 2)[:, None], out=extra)
        np.add(matrix, extra, out=matrix)
    np.add.reduce(diagonals, axis=4, out=by_channel(out[:, :, 0], channels))


def by_channel(array: np.ndarray, channels: int) -> np.ndarray:
    """[…, C * m] as […, C, m]."""
    return array.reshape(*array.shape[:-1], channels, array.shape[-1] // channels)


def filter_matrix(
    room: np.ndarray, w: np.ndarray, x: tuple[int, ...], y: tuple[int, ...], stride: Size, dilation: Size
) -> np.ndarray:
    """M at the start of the room, filled with w. The shapes are those of `band_matrix`."""
    matrix, diagonals = band_matrix(room, w.shape, x, y, stride, dilation)
    matrix.fill(0)
    np.copyto(diagonals, by_channel(w[:, :, 0], y[0])[..., None])
    return matrix


def band_matrix(
    room: np.ndarray, window: tuple[int, ...], x: tuple[int, ...], y: tuple[int, ...], stride: Size, dilation: Size
) -> tuple[np.ndarray, np.ndarray]:
    """M [C, m, OW, reach * W] at the start of the room [C, …], and a view [kh, kw, C, m, OW] of its elements for w.
    `x` is the shape of the image, `y` that of the result as [C, m, OH, OW, N]."""
    width, (channels, filters, _, columns, _) = x[2], y
    depth = reach(window[:2], dilation) * width  # type: ignore[arg-type]
    matrix = room[:, : filters * columns * depth].reshape(channels, filters, columns, depth)
    c, m, q, i = matrix.strides
    strides = (dilation[0] * width * i, dilation[1] * i, c, m, q + stride[1] * i)
    return matrix, strided(matrix, (*window[:2], channels, filters, columns), strides)


def bands(x: np.ndarray, matrix: np.ndarray, count: int, stride: Size) -> np.ndarray:
    """The bands of an image, [C, count, reach * W, N]: a view if the rows of x are contiguous."""
    pixels = x.transpose(3, 1, 2, 0).reshape(x.shape[3], x.shape[1] * x.shape[2], x.shape[0])
    c, w, n = pixels.strides
    shape = (len(pixels), count, matrix.shape[3], x.shape[0])
    return strided(pixels, shape, (c, stride[0] * x.shape[2] * w, w, n))


# Tap by tap -----------------------------------------------------------------------------------------------------------


@by_channels
def depthwise_conv2d_by_taps(
    x: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """y; `scratch` is like y."""
    filters, y, product = (by_channel(array, x.shape[3]) for array in (w, out, scratch))
    y.fill(0)
    for (i, j), _, pixels in taps(x, out.shape[1:3], w.shape[:2], stride, NO_PADDING, dilation):
        np.multiply(x[pixels][..., None], filters[i, j, 0], out=product)
        np.add(y, product, out=y)


@by_channels
def depthwise_conv2d_input_grad_by_taps(
    dy: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """dx; `scratch` is like dy."""
    filters, gradient, product = (by_channel(array, out.shape[3]) for array in (w, dy, scratch))
    out.fill(0)
    for (i, j), _, pixels in taps(out, dy.shape[1:3], w.shape[:2], stride, NO_PADDING, dilation):
        np.multiply(gradient, filters[i, j, 0], out=product)
        for filter in range(product.shape[-1]):
            np.add(out[pixels], product[..., filter], out=out[pixels])


@by_channels
def depthwise_conv2d_filter_grad_by_taps(
    x: np.ndarray, dy: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """dw; `scratch` is like dy."""
    gradient, product = (by_channel(array, x.shape[3]) for array in (dy, scratch))
    for (i, j), _, pixels in taps(x, dy.shape[1:3], out.shape[:2], stride, NO_PADDING, dilation):
        np.multiply(x[pixels][..., None], gradient, out=product)
        np.einsum("nhwc->c", scratch, out=out[i, j, 0])
