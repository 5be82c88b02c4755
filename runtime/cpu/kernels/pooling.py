"""Max pooling over images [N, H, W, C]: the largest pixel of each window, its index, and the gradient."""

from __future__ import annotations

import numpy as np

from runtime.cpu.kernels.windows import Borders, Size, by_channels, taps


@by_channels
def max_pool2d(x: np.ndarray, out: np.ndarray, window: Size, stride: Size, padding: Borders) -> None:
    """The largest pixel of each window; padding counts as -inf."""
    out.fill(-np.inf)
    for _, outputs, pixels in taps(x, out.shape[1:3], window, stride, padding):
        np.maximum(out[outputs], x[pixels], out=out[outputs])


@by_channels
def max_pool2d_with_index(
    x: np.ndarray, out: tuple[np.ndarray, np.ndarray], window: Size, stride: Size, padding: Borders, scratch: np.ndarray
) -> None:
    """(the largest pixel, the number of its tap) of each window; of equal ones the first in row-major order.

    Taps are compared in order: of those that are greater than all before them, the last has the largest number.
    A NaN counts as the largest pixel, but compares as greater than nothing. `scratch` is like the index.
    """
    largest, index = out
    largest.fill(-np.inf)
    index.fill(0)
    for (i, j), outputs, pixels in taps(x, largest.shape[1:3], window, stride, padding):
        so_far, tap = largest[outputs], scratch[outputs]
        if number := i * window[1] + j:
            np.greater(x[pixels], so_far, out=tap.view(bool) if tap.itemsize == 1 else tap)
            np.multiply(tap, number, out=tap)
            np.maximum(index[outputs], tap, out=index[outputs])
        np.maximum(so_far, x[pixels], out=so_far)
    if np.isnan(np.max(largest, initial=-np.inf)):  # seldom: this may allocate
        for (i, j), outputs, pixels in reversed(taps(x, largest.shape[1:3], window, stride, padding)):
            np.copyto(index[outputs], i * window[1] + j, where=np.isnan(x[pixels]))


@by_channels
def max_pool2d_route(
    index: np.ndarray,
    dy: np.ndarray,
    out: np.ndarray,
    window: Size,
    stride: Size,
    padding: Borders,
    scratch: np.ndarray,
) -> None:
    """dx: the gradient of each window goes to the tap with the number `index`; `scratch` is like dy.

    The bits of dy, as an integer, are multiplied by 1 or 0: exact for every dy, and without a branch.
    """
    bits = f"i{dy.itemsize}"
    gradient, chosen = dy.view(bits), scratch.view(bits)
    disjoint = window[0] <= stride[0] and window[1] <= stride[1]  # no pixel is in two windows
    if not (disjoint and covered(out, dy.shape[1:3], window, stride, padding)):
        out.fill(0)
    for (i, j), outputs, pixels in taps(out, dy.shape[1:3], window, stride, padding):
        here = chosen[outputs]
        np.equal(index[outputs], i * window[1] + j, out=here)
        if disjoint:
            np.multiply(gradient[outputs], here, out=out.view(bits)[pixels])
        else:
            np.multiply(gradient[outputs], here, out=here)
            np.add(out[pixels], here.view(dy.dtype), out=out[pixels])


def covered(image: np.ndarray, size: Size, window: Size, stride: Size, padding: Borders) -> bool:
    """Whether every pixel is in a window, for windows that do not overlap."""
    ends = (count * step - before for count, step, (before, _) in zip(size, stride, padding, strict=True))
    return window == stride and all(end >= extent for end, extent in zip(ends, image.shape[1:3], strict=True))
