"""Sums keep their digits: millions of equal numbers, in every order in memory, over all and over some axes."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from runtime.cpu import kernels

SHAPES = [
    (10_000_000,),
    (3, 3_333_333),
    (3_333_333, 3),
    (1000, 10_000),
    (200, 250, 201),
    (128, 64, 64, 3),
    (7, 5, 1000, 300),
]
VALUES = (0.1, -0.7, 1 / 3, 1.1)


def some_axes(rank: int) -> list[tuple[int, ...]]:
    return [axes for count in range(1, rank + 1) for axes in combinations(range(rank), count)]


def in_memory(shape: tuple[int, ...], value: float) -> list[np.ndarray]:
    """An array in reading order, with the batch innermost, and as a part of a larger one."""
    x = np.full(shape, value, np.float32)
    last = np.full((*shape[1:], shape[0]), value, np.float32)
    wide = np.full((*shape[:-1], shape[-1] + 1), value, np.float32)
    return [x, np.moveaxis(last, -1, 0), x.T.copy().T, wide[..., :-1]]


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_equal_numbers(shape: tuple[int, ...]):
    for number, axes in enumerate(some_axes(len(shape))):
        value = float(np.float32(VALUES[number % len(VALUES)]))
        count = np.prod([shape[axis] for axis in axes])
        left = [size for axis, size in enumerate(shape) if axis not in axes]
        for x in in_memory(shape, value):
            out = np.full(left, np.nan, np.float32)
            kernels.total(x, out=out, axes=axes)
            np.testing.assert_allclose(out, count * value, rtol=1e-6)
            kernels.sum_of_products(x, np.ones(shape, np.float32), out=out, axes=axes)
            np.testing.assert_allclose(out, count * value, rtol=1e-6)
            kernels.sum_of_products(x, x, out=out, axes=axes)
            np.testing.assert_allclose(out, count * value * value, rtol=1e-6)


@pytest.mark.parametrize("order", [*permutations(range(3))])
@pytest.mark.parametrize("shape", [(40, 50, 60), (2, 1100, 3), (1025, 1, 1), (3, 0, 5), (257, 8, 1)])
def test_sums_of_random_numbers(shape: tuple[int, ...], order: tuple[int, ...]):
    x = np.random.default_rng(0).standard_normal(shape).transpose(order)
    for axes in some_axes(3):
        kept = np.full([1 if axis in axes else size for axis, size in enumerate(x.shape)], np.nan)
        kernels.total(x, out=kept, axes=axes)
        np.testing.assert_allclose(kept, x.sum(axes, keepdims=True), rtol=1e-12, atol=1e-12)


def test_infinities_and_nan_stay():
    x = np.ones((5000, 2), np.float32)
    x[17], x[4001, 1] = (np.inf, np.nan), 1
    out = np.zeros(2, np.float32)
    kernels.total(x, out=out, axes=(0,))
    assert out[0] == np.inf and np.isnan(out[1])
