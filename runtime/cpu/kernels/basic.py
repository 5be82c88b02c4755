"""Kernels for all but images and products: views, elementwise functions, indices, random numbers."""

from __future__ import annotations

import math

import numpy as np

from runtime.random import draw, fill_uniform

try:
    from numpy._core import umath
except ImportError:  # NumPy 1
    from numpy.core import umath  # type: ignore[no-redef]

# clip(x, low, high, out=…): the ufunc inside np.clip, which adds 2 us of Python. np.maximum with a number as an operand
# takes three times as long.
clip = umath.clip  # type: ignore[attr-defined]


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


def gather(table: np.ndarray, indices: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """The rows of a table at the indices; `scratch` i64 has their shape, since NumPy needs them in this dtype."""
    np.copyto(scratch, indices)
    np.take(table, scratch, axis=0, out=out, mode="clip")


def scatter_add(indices: np.ndarray, updates: np.ndarray, out: np.ndarray) -> None:
    """Adds each row of `updates` to the row of `out` at its index."""
    out.fill(0)
    np.add.at(out, indices, updates)


def random(
    seed: np.ndarray, step: np.ndarray, *first: np.ndarray, out: np.ndarray, distribution: str, stream: int
) -> None:
    """Random numbers that depend only on (seed, step, stream, first); allocates an array unless they are uniform."""
    if distribution == "uniform":
        fill_uniform(out, int(seed), int(step), stream, *map(int, first))
    else:
        out[...] = draw(int(seed), int(step), stream, out.shape, distribution, *map(int, first))


def orthogonalize(x: np.ndarray, out: np.ndarray) -> None:
    """Orthonormal rows or columns, whichever are fewer, by QR with a positive diagonal of R; allocates."""
    tall = x if x.shape[0] >= x.shape[1] else x.T
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diag(r) < 0, -1, 1)
    out[...] = q if tall is x else q.T
