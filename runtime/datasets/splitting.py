"""Rows that are set apart, for testing or for validation: drawn by the seed, the same in every later use of a run."""

from __future__ import annotations

import numpy as np

from runtime.random import generator

TEST_STREAM, VALIDATION_STREAM = -2, -3  # the compiler numbers the random ops of a program from 0; -1 is the shuffling
TEST_SHARE = 1 / 6  # of the rows, if no array has separate test rows
MOVED_AT_ONCE = 4096


def rows_apart(rows: int, share: float) -> int:
    """How many of the rows are set apart: at least 1, and at least 1 is left if there are 2."""
    return max(1, min(int(rows * share + 1e-9), rows - 1))  # 12 / 6 is 2, whatever the rounding


def drawn_rows(rows: int, count: int, seed: int | None, stream: int) -> tuple[np.ndarray, np.ndarray]:
    """The other rows, and `count` rows that a seed draws, both in ascending order; without a seed, the last rows."""
    if seed is None:
        return np.arange(rows - count), np.arange(rows - count, rows)
    drawn = np.sort(generator(seed, 0, stream).permutation(rows)[:count])
    return np.delete(np.arange(rows), drawn), drawn


def move_apart(array: np.ndarray, others: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other rows and the drawn rows of an array [N, …], as views of it; its rows are moved in place."""
    apart = array[drawn]
    for start in range(0, len(others), MOVED_AT_ONCE):  # rows move up only: none is lost before it moves
        rows = others[start : start + MOVED_AT_ONCE]
        array[start : start + len(rows)] = array[rows]
    array[len(others) :] = apart
    return array[: len(others)], array[len(others) :]
