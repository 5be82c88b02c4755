"""Makes `waves.npz`, a small data set for own_arrays.nn, with NumPy only.

    python examples/own_arrays.py waves.npz
    python -m compiler train examples/own_arrays.nn --data waves.npz

A data set is a .npz file (or a folder of .npy files) whose arrays have the names of the model's inputs and targets and
one row per example. `NAME_test` contains the test rows; without such arrays, a sixth of the rows, drawn by the seed, is
for testing.
"""

from __future__ import annotations

import sys

import numpy as np

TRAIN, TEST = 12_000, 2_000
DIRECTIONS = 4


def waves(rows: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points f32[rows, 2] in [-1, 1)^2, their directions u8[rows], and the heights f32[rows] of the waves there."""
    point = random.uniform(-1, 1, (rows, 2)).astype(np.float32)
    direction = random.integers(DIRECTIONS, size=rows, dtype=np.uint8)
    angle = direction * (np.pi / DIRECTIONS)
    along = point[:, 0] * np.cos(angle) + point[:, 1] * np.sin(angle)
    height = np.sin(5 * along) + random.normal(0, 0.05, rows)
    return point, direction, height.astype(np.float32)


def main(path: str) -> None:
    random = np.random.default_rng(0)
    point, direction, height = waves(TRAIN, random)
    point_test, direction_test, height_test = waves(TEST, random)
    np.savez(
        path,
        point=point,
        direction=direction,
        height=height,
        point_test=point_test,
        direction_test=direction_test,
        height_test=height_test,
    )
    print(f"{path}: {TRAIN:,} training examples, {TEST:,} test examples")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "waves.npz")
