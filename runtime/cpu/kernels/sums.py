"""Sums that do not lose digits: of parts with few elements, then of their sums.

A sum of n equal float32 numbers, one after another, can be wrong by n * 6e-8 of its value. Here nothing adds more than
some hundred numbers to one, in several lanes, so that the error stays below 1e-6 for any n. Parts take 1/PART or
1/ROWS of the memory of the operand.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

PART = 256  # adjacent elements that BLAS adds, in at least 8 lanes
ROWS = 32  # elements far apart in memory
PAIRS = 1024  # products of adjacent elements that BLAS adds, in lanes
SLICE = 32  # products of elements in any layout
SHORT = 64  # sums that need no parts
SHORT_ADJACENT = 1024  # the same for adjacent elements, which are added in lanes


def total(x: np.ndarray, out: np.ndarray, axes: tuple[int, ...]) -> None:
    """The sum over axes, which `out` does not have, or with length 1. x is float32 or float64."""
    out = out.squeeze(axes) if out.ndim == x.ndim else out
    count = math.prod(x.shape[axis] for axis in axes)
    if count <= SHORT:
        plain_total(x, out, axes)
        return
    left = [axis for axis in range(x.ndim) if axis not in axes]
    inner = sorted(axes, key=lambda axis: -x.strides[axis])
    moved = x.transpose(left + inner)
    if adjacent(moved, len(left)):
        if count <= SHORT_ADJACENT:
            plain_total(x, out, axes)
            return
        add_parts(moved.reshape(*moved.shape[: len(left)], count), out)
        return
    longest = max(axes, key=lambda axis: x.shape[axis])
    whole = x.shape[longest] // ROWS * ROWS
    head, tail = np.split(x, [whole], axis=longest)
    rows = head.reshape(*x.shape[:longest], whole // ROWS, ROWS, *x.shape[longest + 1 :])
    parts = np.add.reduce(rows, axis=longest + 1)
    if whole < x.shape[longest]:
        parts = np.concatenate([parts, np.add.reduce(tail, axis=longest, keepdims=True)], axis=longest)
    total(parts, out, axes)


def plain_total(x: np.ndarray, out: np.ndarray, axes: tuple[int, ...]) -> None:
    """Over all axes but the last by einsum, which adds with vector instructions where np.sum does not."""
    if x.ndim > 1 and axes == tuple(range(x.ndim - 1)):
        np.einsum(x, range(x.ndim), [x.ndim - 1], out=out)
    else:
        np.add.reduce(x, axis=axes, out=out)


def adjacent(x: np.ndarray, first: int) -> bool:
    """Whether the elements along the axes from `first` on are next to each other in memory, in reading order."""
    step = x.itemsize
    for size, stride in reversed([*zip(x.shape, x.strides, strict=True)][first:]):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def add_parts(x: np.ndarray, out: np.ndarray) -> None:
    """The sum along the last axis, of adjacent elements: products with a vector of ones, which BLAS computes."""
    whole = x.shape[-1] // PART * PART
    parts = np.matmul(x[..., :whole].reshape(*x.shape[:-1], -1, PART), ones(PART, x.dtype.char))
    np.add.reduce(parts, axis=-1, out=out)  # in pairs
    if whole < x.shape[-1]:
        np.add(out, np.add.reduce(x[..., whole:], axis=-1), out=out)


@cache
def ones(count: int, dtype: str) -> np.ndarray:
    return np.ones(count, dtype)


def sum_of_products(a: np.ndarray, b: np.ndarray, out: np.ndarray, axes: tuple[int, ...]) -> None:
    """sum(a * b) over axes, without the product: as dot products if over all axes, or over all but the outermost."""
    alike, stays = a.strides == b.strides and a.size > 0, a.ndim - len(axes)
    if alike and stays == 0 and (a.flags.c_contiguous or a.flags.f_contiguous):
        add_dots(a.ravel("K"), b.ravel("K"), out)
    elif alike and axes == tuple(range(a.ndim - 1)) and a.strides[-1] == max(a.strides):
        order = sorted(range(a.ndim), key=lambda axis: -a.strides[axis])
        a, b = (x.transpose(order).reshape(len(out), -1) for x in (a, b))
        add_dots(a, b, out)
    else:
        add_slices(a, b, out, axes)


def add_dots(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """sum(a * b) along the last axis."""
    whole = a.shape[-1] // PAIRS * PAIRS
    if not whole:
        np.dot(a, b, out=out) if a.ndim == 1 else np.matmul(a[:, None, :], b[:, :, None], out=out[:, None, None])
        return
    rest = dots(a[..., whole:], b[..., whole:])
    parts = (x[..., :whole].reshape(*x.shape[:-1], -1, PAIRS) for x in (a, b))
    np.add(np.add.reduce(dots(*parts), axis=-1), rest, out=out)


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.matmul(a[..., None, :], b[..., :, None])[..., 0, 0]


def add_slices(a: np.ndarray, b: np.ndarray, out: np.ndarray, axes: tuple[int, ...]) -> None:
    """sum(a * b) over axes for any layout in memory: SLICE products along the longest axis, then the sum of these."""
    letters, left = range(a.ndim), [axis for axis in range(a.ndim) if axis not in axes]
    if math.prod(a.shape[axis] for axis in axes) <= SLICE or a.dtype.kind != "f":
        np.einsum(a, letters, b, letters, left, out=out)
        return
    longest = max(axes, key=lambda axis: a.shape[axis])
    size = a.shape[longest]
    step = min(size, SLICE)
    before, slices = (slice(None),) * longest, size // step
    split: list[Any] = [*letters[: longest + 1], a.ndim, *letters[longest + 1 :]]
    parts = np.empty((*a.shape[:longest], -(-size // step), *a.shape[longest + 1 :]), a.dtype)
    first, second = (
        x[*before, : slices * step].reshape(*x.shape[:longest], slices, step, *x.shape[longest + 1 :]) for x in (a, b)
    )
    np.einsum(first, split, second, split, letters, out=parts[*before, :slices])
    if slices * step < size:
        first, second = a[*before, slices * step :], b[*before, slices * step :]
        rest = [axis for axis in letters if axis != longest]
        np.einsum(first, letters, second, letters, rest, out=parts[*before, slices])
    total(parts, out, axes)
