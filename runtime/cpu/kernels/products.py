"""Products of matrices, cut so that BLAS multiplies them without packing if packing does not pay.

OpenBLAS first copies operands into packed blocks, except for products of up to a million multiplications, which it
computes without copies. If one of the dimensions is small, each packed element is used too few times: cut into small
products along a large dimension, such a product is 1.5 to 6 times as fast.

How a product is cut depends only on its shape: results are the same for every number of threads, and inside a group of
threads. If a product is not cut, each thread computes a part of the result.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise
from math import prod

import numpy as np

from runtime.cpu.threads import LANES, parts, thread_count, together

SMALL = 1_000_000  # multiplications: above, OpenBLAS packs
SMALL_TRANSPOSED = 1_200  # elements of the result: above, it packs if both operands are contiguous along the sum
SHORTEST = 48  # rows of a piece: with fewer, packing is cheaper
VECTOR = 32  # pieces are multiples of this
LARGEST_SUM = 32_768  # elements of a result that is a sum of pieces
LARGE = 4_000_000  # multiplications for each thread: with fewer, one finishes before another has started


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray, scratch: np.ndarray | None = None) -> None:
    """a @ b, or a stack of such products. With `scratch`, of the shape of `partial_sums`, it may be cut into sums."""
    if out.ndim > 2:
        left, result = as_matrix(a), as_matrix(out)
        if prod(b.shape[:-2]) != 1 or left is None or result is None or len(left) != len(result):
            matmul_stacks(a, b, out)
            return
        a, b, out = left, b.reshape(b.shape[-2:]), result  # one b for the whole stack: one product of all rows
    thread_count()  # from now on, BLAS works in the thread that calls it
    (rows, depth), columns = a.shape, b.shape[1]
    if rows * depth * columns <= SMALL:
        np.matmul(a, b, out=out)
    elif size := piece(rows, depth * columns):
        by_rows(a, b, out, size)
    elif size := piece(columns, depth * rows):
        by_rows(b.T, a.T, out.T, size)
    elif scratch is None:
        divided(a, b, out)
    elif rows <= columns:
        by_depth(a, b, out, scratch)
    else:
        by_depth(b.T, a.T, out.T, scratch.swapaxes(2, 3))


@cache
def piece(length: int, others: int) -> int:
    """Rows, of `length`, of a small product, with `others` multiplications in each; 0 if there are too few to pay."""
    most = SMALL // max(others, 1)
    if most < SHORTEST:
        return 0
    most = most // VECTOR * VECTOR
    count = -(-length // most)
    return -(-length // (count * VECTOR)) * VECTOR


def by_rows(a: np.ndarray, b: np.ndarray, out: np.ndarray, size: int) -> None:
    """`size` rows of the result at a time."""
    pieces = -(-len(a) // size)
    count = parts(min(pieces, a.size * b.shape[1] // LARGE))
    bounds = [*(pieces * i // count * size for i in range(count)), len(a)]
    together(*(partial(rows_in_pieces, a[i:j], b, out[i:j], size) for i, j in pairwise(bounds)))


def rows_in_pieces(a: np.ndarray, b: np.ndarray, out: np.ndarray, size: int) -> None:
    """a @ b for a matrix a, or for each matrix of a stack b: one call for all whole pieces, and one for the rest."""
    whole = len(a) // size * size
    pieces = a[:whole].reshape(-1, size, a.shape[1])
    results = out[..., :whole, :].reshape(*out.shape[:-2], -1, size, out.shape[-1])
    np.matmul(pieces, b[..., None, :, :], out=results)
    if whole < len(a):
        np.matmul(a[whole:], b, out=out[..., whole:, :])


def by_depth(a: np.ndarray, b: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """A long sum for each element of the result, as sums of pieces that are added in a fixed order."""
    (rows, depth), columns = a.shape, b.shape[1]
    width = group_width(columns, SMALL_TRANSPOSED // rows)
    size = max(VECTOR, SMALL // (rows * width) // VECTOR * VECTOR)
    pieces = -(-depth // size)
    strips = min(len(scratch), pieces)

    def sum_strips(first: int, last: int) -> None:
        for strip in range(first, last):
            total, extra = scratch[strip]
            start, *others = range(pieces * strip // strips, pieces * (strip + 1) // strips)
            multiply(start, total)
            for i in others:
                multiply(i, extra)
                np.add(total, extra, out=total)

    def multiply(i: int, result: np.ndarray) -> None:
        rows_of_b = slice(i * size, (i + 1) * size)
        groups = b[rows_of_b].reshape(-1, columns // width, width).swapaxes(0, 1)
        np.matmul(a[:, rows_of_b], groups, out=result.reshape(rows, -1, width).swapaxes(0, 1))

    count = parts(min(strips, rows * depth * columns // LARGE))
    together(*(partial(sum_strips, strips * i // count, strips * (i + 1) // count) for i in range(count)))
    np.add.reduce(scratch[:strips, 0], axis=0, out=out)


def partial_sums(rows: int, columns: int, depth: int) -> tuple[int, ...] | None:
    """The shape of the scratch space for such sums; None if `matmul` cuts in another way, or not at all."""
    if min(rows, columns) > VECTOR or rows * columns > LARGEST_SUM or rows * columns * depth <= SMALL:
        return None
    cut_along_result = piece(rows, depth * columns) or piece(columns, depth * rows)
    return None if cut_along_result else (LANES, 2, rows, columns)


def group_width(columns: int, most: int) -> int:
    """The largest divisor of a number of columns that is at most `most`; all of them if it is too small to pay."""
    return next((width for width in range(min(columns, most), most // 4, -1) if columns % width == 0), columns)


def divided(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Each thread has a part of the rows or columns of the result, whichever are more."""
    rows, columns = out.shape[-2:]
    count = parts(out.size * a.shape[-1] // LARGE)
    if count == 1:
        np.matmul(a, b, out=out)
    elif rows >= columns:
        cuts = pairwise(rows * i // count for i in range(count + 1))
        together(*(partial(np.matmul, a[..., i:j, :], b, out=out[..., i:j, :]) for i, j in cuts))
    else:
        cuts = pairwise(columns * i // count for i in range(count + 1))
        together(*(partial(np.matmul, a, b[..., i:j], out=out[..., i:j]) for i, j in cuts))


def as_matrix(x: np.ndarray) -> np.ndarray | None:
    """All rows of a stack of matrices as one matrix, a view; None if they are not at one distance from each other."""
    for axis in range(x.ndim - 2):
        if x.shape[axis] > 1 and x.strides[axis] != x.strides[axis + 1] * x.shape[axis + 1]:
            return None
    return x.reshape(prod(x.shape[:-1]), x.shape[-1])


def matmul_stacks(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Copies a matrix that has no contiguous axis, since BLAS cannot read it."""
    a, b = (x if x.itemsize in x.strides[-2:] else np.ascontiguousarray(x) for x in (a, b))
    divided(a, b, out)
