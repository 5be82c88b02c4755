"""Windows that slide over images [N, H, W, C]: their taps, and `patches` with its adjoint `fold`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from runtime.cpu.threads import parts, together

Size = tuple[int, int]  # along height and width
Borders = tuple[Size, Size]  # (top, bottom), (left, right)
Slices = tuple[slice, ...]

NO_PADDING: Borders = ((0, 0), (0, 0))
MANY_PIXELS = 50_000  # for each thread: with fewer, one finishes before another has started


def by_channels(kernel: Callable[..., None]) -> Callable[..., None]:
    """Runs a kernel on parts of the channels at the same time, since they are independent of each other.

    Channels are the last axis of every array; some arrays may have m channels for one of the others.
    """

    @wraps(kernel)
    def split(*arrays: np.ndarray, **settings: Any) -> None:
        work = arrays[0].size // MANY_PIXELS
        if work < 2 or parts(work) == 1:
            kernel(*arrays, **settings)
            return
        written = {name: settings.pop(name) for name in ("out", "scratch") if name in settings}
        channels = min(array.shape[-1] for array in (*arrays, *written.values()) if isinstance(array, np.ndarray))

        def part(first: int, last: int) -> None:
            def channels_of(array: Any) -> Any:
                if isinstance(array, tuple):
                    return tuple(map(channels_of, array))
                multiple = array.shape[-1] // channels
                return array[..., first * multiple : last * multiple]

            kernel(
                *map(channels_of, arrays), **{name: channels_of(array) for name, array in written.items()}, **settings
            )

        count = parts(min(channels, work))
        bounds = pairwise(channels * i // count for i in range(count + 1))
        together(*(partial(part, first, last) for first, last in bounds))

    return split


def taps(
    image: np.ndarray, size: Size, window: Size, stride: Size, padding: Borders, dilation: Size = (1, 1)
) -> Sequence[tuple[Size, Slices, Slices]]:
    """For each tap (i, j) of a window in row-major order: the outputs [N, *size, …] for which it is inside the image,
    and the pixels of the image [N, H, W, …] there. Padding is neither read nor written."""
    return taps_of(image.shape[1:3], size, window, stride, padding, dilation)


@cache
def taps_of(
    image: Size, size: Size, window: Size, stride: Size, padding: Borders, dilation: Size
) -> list[tuple[Size, Slices, Slices]]:
    found = []
    for i, j in product(range(window[0]), range(window[1])):
        rows, image_rows = span(image[0], size[0], i * dilation[0] - padding[0][0], stride[0])
        columns, image_columns = span(image[1], size[1], j * dilation[1] - padding[1][0], stride[1])
        found.append(((i, j), (slice(None), rows, columns), (slice(None), image_rows, image_columns)))
    return found


def span(extent: int, count: int, first: int, step: int) -> tuple[slice, slice]:
    """Of `count` outputs at positions first, first + step, …: those inside 0 … extent - 1, and their positions."""
    low = max(0, -(first // step))
    high = max(low, min(count, (extent - 1 - first) // step + 1))
    start = first + low * step
    return slice(low, high), slice(start, start + (high - low) * step, step)


def strided(array: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A view with other sizes and strides; raises ValueError if part of it is outside of the array.

    The numbers come from generated source, which the cache stores as text: NumPy itself would not check them.
    """
    (low, high), (lowest, highest) = reached(array.shape, array.strides), reached(shape, strides)
    if 0 not in shape and (0 in array.shape or lowest < low or highest > high):
        raise ValueError(f"a view {list(shape)} with strides {list(strides)} leaves its array {list(array.shape)}")
    return as_strided(array, shape, strides)


def reached(shape: tuple[int, ...], strides: tuple[int, ...]) -> Size:
    """The distances in bytes from the first element to the elements at the lowest and the highest address."""
    ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    return sum(min(0, end) for end in ends), sum(max(0, end) for end in ends)


@by_channels
def patches(x: np.ndarray, out: np.ndarray, stride: Size, padding: Borders, dilation: Size) -> None:
    """im2col: out[N, OH, OW, kh, kw, C], with zeros in the padding."""
    if padding != NO_PADDING:
        out.fill(0)
    for (i, j), outputs, pixels in taps(x, out.shape[1:3], out.shape[3:5], stride, padding, dilation):
        np.copyto(out[*outputs, i, j], x[pixels])


@by_channels
def fold(parts: np.ndarray, out: np.ndarray, stride: Size, padding: Borders, dilation: Size) -> None:
    """The adjoint of `patches`: adds every window back to the pixels it came from."""
    out.fill(0)
    for (i, j), outputs, pixels in taps(out, parts.shape[1:3], parts.shape[3:5], stride, padding, dilation):
        np.add(out[pixels], parts[*outputs, i, j], out=out[pixels])
