"""Convolution over images without padding and its two adjoints, as products over patches, tile by tile.

x [N, H, W, C]   w [kh, kw, C, F]   y [N, OH, OW, F]   in memory as [C, H, W, N] and [F, OH, OW, N]

A tile is a rectangle of output pixels of some images. Its patches, a matrix with a column [kh * kw * C] for every pixel
and image, are copied to the scratch space, where they stay in the cache, and multiplied in small products (see
products.py). The patches of all pixels never exist at the same time. dx and dW are sums over tiles, and may differ in
the last digits with the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np

from runtime.cpu.kernels.products import LARGE, SMALL, SMALL_TRANSPOSED, VECTOR, rows_in_pieces
from runtime.cpu.kernels.windows import Size, strided
from runtime.cpu.threads import LANES, parts, together

BLOCK = 80_000  # elements of the patches of one row of a tile: they and their product fit a cache of 1 MB
TILE = 320_000  # elements of the patches of a tile; a larger one needs fewer calls
FEWEST_COLUMNS = 32
FEWEST_CHANNELS = 8  # for each thread
MANY_CHANNELS = 2 * FEWEST_CHANNELS
FEWEST_ROWS = 8  # of a small product: with fewer, packing is cheaper

ImageTile = tuple[slice, slice, slice]  # rows and columns of output pixels, images


def conv2d_scratch(depth: int) -> int:
    """Elements of scratch space that conv2d needs for patches of `depth` elements."""
    return LANES * room_for_tile(depth)


def conv2d_grad_scratch(depth: int, filters: int, channels: int) -> int:
    """The same for either adjoint."""
    sums = 2 * depth * filters
    return LANES * room_for_tile(depth + filters) + (sums if channels >= MANY_CHANNELS else LANES * sums)


def room_for_tile(depth: int) -> int:
    return max(TILE, depth * FEWEST_COLUMNS) + 8 * VECTOR


def conv2d(x: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray) -> None:
    """y = W @ patches of x, one product for each row of a tile; each thread has some of the tiles."""
    weights = w.reshape(-1, w.shape[3]).T
    filters, depth = weights.shape
    y = out.transpose(3, 1, 2, 0)
    windows = windows_of(x, w.shape[:2], y.shape[1:3], stride, dilation).transpose(3, 0, 1, 2, 4, 5)
    contiguous = y.strides[2] == y.shape[3] * y.strides[3]
    tiles = list(tiles_of(y, BLOCK // depth, TILE // depth, not contiguous))

    def run(share: slice, room: np.ndarray) -> None:
        for rows, *block in tiles[share]:
            patches, _ = copied(windows[rows, :, :, :, *block], room)
            result = y[:, rows, *block].swapaxes(0, 1)
            result = result.reshape(*result.shape[:2], -1)
            patches = patches.reshape(len(result), depth, -1)
            rows_in_pieces(weights, patches, result, even(filters, SMALL // patches[0].size))

    shares(run, len(tiles), out.size * depth, scratch)


def conv2d_input_grad(
    dy: np.ndarray, w: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """dx: adds the columns of Wᵀ @ dY to their windows. Each thread has some of the channels of dx."""
    y = dy.transpose(3, 1, 2, 0)

    def run(share: slice, room: np.ndarray) -> None:
        dx = out[..., share]
        dx.fill(0)
        windows = windows_of(dx, w.shape[:2], y.shape[1:3], stride, dilation)
        weights, room = copied(w[:, :, share], room)
        weights = weights.reshape(-1, len(y))
        columns = TILE // sum(weights.shape)
        for tile in tiles_of(y, columns, columns):
            gradients, rest = copied(y[:, *tile], room)
            pixels = windows[:, :, :, *tile]
            patches, _ = carved(rest, (len(weights), prod(pixels.shape[3:])))
            size = even(len(weights), SMALL // gradients.size)
            rows_in_pieces(weights, gradients.reshape(len(y), -1), patches, size)
            add_windows(patches.reshape(pixels.shape), pixels)

    shares(run, out.shape[3], dy.size * prod(w.shape[:3]), scratch, FEWEST_CHANNELS)


def add_windows(patches: np.ndarray, pixels: np.ndarray) -> None:
    """Adds patches [kh, kw, C, rows, columns, images] to their pixels, one tap at a time: no pixel belongs to the same
    tap of two windows."""
    for tap in np.ndindex(pixels.shape[:2]):
        np.add(pixels[tap], patches[tap], out=pixels[tap])


def conv2d_filter_grad(
    x: np.ndarray, dy: np.ndarray, out: np.ndarray, stride: Size, dilation: Size, scratch: np.ndarray
) -> None:
    """dW: the sum of patches @ dYᵀ over tiles. Each thread has some channels of x or, if there are few, some tiles."""
    y = dy.transpose(3, 1, 2, 0)
    windows = windows_of(x, out.shape[:2], y.shape[1:3], stride, dilation)
    rows, columns = product_of_sums(prod(out.shape[:3]), len(y))
    tiles = list(tiles_of(y, columns, columns))
    sums: dict[int, np.ndarray] = {}

    def of_channels(share: slice, room: np.ndarray) -> None:
        sum_products(windows[:, :, share], y, tiles, rows, out[:, :, share], room)

    def of_tiles(share: slice, room: np.ndarray) -> None:
        sums[share.start], room = carved(room, out.shape)
        sum_products(windows, y, tiles[share], rows, sums[share.start], room)

    work = dy.size * prod(out.shape[:3])
    if x.shape[3] >= MANY_CHANNELS:
        shares(of_channels, x.shape[3], work, scratch, FEWEST_CHANNELS)
    else:
        shares(of_tiles, len(tiles), work, scratch)
        out.fill(0)
        for first in sorted(sums):
            np.add(out, sums[first], out=out)


def product_of_sums(depth: int, filters: int) -> tuple[int, int]:
    """The rows and columns of patches that are multiplied with dYᵀ at a time."""
    columns, rows = TILE // (depth + filters), min(depth, SMALL_TRANSPOSED // filters)
    return (rows, min(columns, SMALL // (rows * filters))) if rows >= FEWEST_ROWS else (depth, columns)


def sum_products(
    windows: np.ndarray, y: np.ndarray, tiles: Sequence[ImageTile], rows: int, out: np.ndarray, room: np.ndarray
) -> None:
    """The sum of patches @ dYᵀ over some tiles."""
    extra, room = carved(room, (prod(out.shape[:3]), len(y)))
    out.fill(0)
    for tile in tiles:
        gradients, rest = copied(y[:, *tile], room)
        patches, _ = copied(windows[:, :, :, *tile], rest)
        rows_in_pieces(patches.reshape(len(extra), -1), gradients.reshape(len(y), -1).T, extra, rows)
        np.add(out, extra.reshape(out.shape), out=out)


def shares(
    run: Callable[[slice, np.ndarray], Any], length: int, multiplications: int, scratch: np.ndarray, fewest: int = 1
) -> None:
    """Calls a function for shares of range(length) at the same time, each with a share of the scratch space."""
    count = parts(min(LANES, length // fewest, multiplications // LARGE))
    size = scratch.size // count // VECTOR * VECTOR

    def share(i: int) -> None:
        run(slice(length * i // count, length * (i + 1) // count), scratch[size * i : size * (i + 1)])

    together(*(partial(share, i) for i in range(count)))


def windows_of(image: np.ndarray, window: Size, size: Size, stride: Size, dilation: Size) -> np.ndarray:
    """The pixel at each tap of each window: a view [kh, kw, C, *size, N] of an image [N, H, W, C]."""
    n, h, w, c = image.strides
    shape = (*window, image.shape[3], *size, image.shape[0])
    return strided(image, shape, (h * dilation[0], w * dilation[1], c, h * stride[0], w * stride[1], n))


def tiles_of(y: np.ndarray, block: int, tile: int, one_column: bool = False) -> Iterator[ImageTile]:
    """Divides y [F, OH, OW, N] into tiles of at most `tile` columns, with at most `block` in each of their rows."""
    images = even(y.shape[3], max(FEWEST_COLUMNS, block))
    width = 1 if one_column else even(y.shape[2], block // images)
    height = even(y.shape[1], tile // (width * images))
    rows, columns, some = (
        [slice(i, min(i + step, length)) for i in range(0, length, step)]
        for length, step in zip(y.shape[1:], (height, width, images), strict=True)
    )
    yield from product(rows, columns, some)


def even(length: int, most: int) -> int:
    """The size of equal pieces of a length, none larger than `most`; at least 1."""
    return -(-length // max(1, -(-length // max(1, most)))) or 1


def carved(room: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An array at the start of the room, and the rest of the room, aligned for vector loads."""
    size = prod(shape)
    return room[:size].reshape(shape), room[-(-size // VECTOR) * VECTOR :]


def copied(array: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of an array at the start of the room, and the rest of the room."""
    copy, rest = carved(room, array.shape)
    np.copyto(copy, array)
    return copy, rest
