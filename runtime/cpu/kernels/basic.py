"""Kernels for all but images and products: views, elementwise functions, indices, random numbers."""

from __future__ import annotations

import math

import numpy as np

from runtime.errors import IndexOutside
from runtime.random import fill

try:
    from numpy._core import umath
except ImportError:  # NumPy 1
    from numpy.core import umath  # type: ignore[no-redef]

# clip(x, low, high, out=…): the ufunc inside np.clip, which adds 2 us of Python. np.maximum with a number as an operand
# takes three times as long.
clip = umath.clip  # type: ignore[attr-defined]
largest = np.maximum.reduce
UNSIGNED = {1: np.uint8, 4: np.uint32, 8: np.uint64}  # dtypes by bytes


def view(arena: np.ndarray, offset: int, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """The array at a byte offset of the arena."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return arena[offset : offset + size].view(dtype).reshape(shape)


def steps(*stacks: np.ndarray, reverse: bool) -> list[tuple[np.ndarray, ...]]:
    """The views of all stacks at each index of the first axis."""
    order = range(len(stacks[0]))
    return [tuple(stack[t, ...] for stack in stacks) for t in (reversed(order) if reverse else order)]


def select_or_zero(condition: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
    """x where the condition is true, 0 elsewhere, even if x is not finite there; `out` may be x.

    The bits of x, as an integer, are multiplied by 1 or 0. A masked copy would branch at every element, which takes
    twenty times as long on a mask without a pattern.
    """
    bits = f"i{x.itemsize}"
    np.multiply(x.view(bits), condition.view(np.int8), out=out.view(bits))


def sigmoid(x: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """1 / (1 + exp(-x)) as exp(x) / (1 + exp(x)), accurate also where it is small; `out` may be x.

    The limit keeps exp(x) finite; beyond it the result is 1. `scratch` has the shape of x.
    """
    clip(x, -np.inf, 88.0, out=out)
    np.exp(out, out=out)
    np.add(out, 1.0, out=scratch)
    np.divide(out, scratch, out=out)


def argmax(x: np.ndarray, out: np.ndarray, axis: int, scratch: np.ndarray) -> None:
    """The first index of the largest element. `scratch` i64[1 + n, …] is for the indices in the dtype of NumPy, and for
    a contiguous copy of each row of n elements, for which NumPy would otherwise allocate space."""
    rows, indices = x if axis == x.ndim - 1 else np.moveaxis(x, axis, -1), scratch[0, ...]
    contiguous = scratch[1:].reshape(-1).view(x.dtype)[: x.size].reshape(rows.shape)
    np.copyto(contiguous, rows)
    contiguous.argmax(-1, indices)
    np.copyto(out, indices, casting="same_kind")


def iota(out: np.ndarray) -> None:
    """0, 1, 2, …"""
    out.fill(1)
    out[:1] = 0
    np.add.accumulate(out, out=out)


def check_index(indices: np.ndarray | int, out: np.ndarray, size: int, place: str, layer: str, each: int) -> None:
    """Copies indices; raises IndexOutside for the first outside 0 … size - 1. `each`: how many an example has, 0 if
    they do not belong to examples. As unsigned numbers, negative ones are the largest."""
    given = indices if isinstance(indices, np.ndarray) else np.asarray(indices, out.dtype)
    if given.size and largest(given.view(UNSIGNED[given.itemsize]), None) >= size:
        first = int(((given < 0) | (given >= size)).argmax())
        raise IndexOutside(int(given.ravel()[first]), size, first // each if each else None, place, layer)
    np.copyto(out, given)


def gather(table: np.ndarray, indices: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """The rows of a table at the indices, or the nearest; `scratch` i64 has the shape of the indices, since NumPy needs
    them in this dtype."""
    np.copyto(scratch, indices)
    np.take(table, scratch, axis=0, out=out, mode="clip")


def scatter_add(indices: np.ndarray, updates: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """Adds each row of `updates` to the row of `out` at its index, or at the nearest; `scratch` i64 is for indices."""
    out.fill(0)
    clip(indices, 0, len(out) - 1, out=scratch)
    np.add.at(out, scratch, updates)


def random(
    seed: np.ndarray, step: np.ndarray, *first: np.ndarray, out: np.ndarray, distribution: str, stream: int
) -> None:
    """Random numbers that depend only on (seed, step, stream, first)."""
    fill(out, int(seed), int(step), stream, distribution, *map(int, first))


def orthogonalize(x: np.ndarray, out: np.ndarray) -> None:
    """Orthonormal rows or columns, whichever are fewer, by QR with a positive diagonal of R.

    LAPACK allocates space for four matrices like x in f64.
    """
    tall = x if x.shape[0] >= x.shape[1] else x.T
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diag(r) < 0, -1, 1)
    out[...] = q if tall is x else q.T
