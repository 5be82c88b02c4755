"""The form of a data set: named arrays in two splits, and their types for the compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BYTE_SCALE = 1 / 255  # of unsigned bytes that feed a float input: the values of pixels become 0 … 1

Report = Callable[[str], None]
"""Shows the user a line about progress: a download, a folder that is read."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array as the compiler sees it.

    `dtype` is "u8", "bool", "i32", "i64" or "f32", and `shape` is that of one example. The compiled step multiplies the
    stored values of a float input by `scale` of the train block; without one by the `scale` here, which a run has
    settled; without either by `usual_scale`.
    """

    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None


def usual_scale(dtype: str, kind: str) -> float:
    """The factor of stored values for a float input or target (`kind`) by default: u8 inputs are pixels."""
    return BYTE_SCALE if (dtype, kind) == ("u8", "input") else 1.0


@dataclass(frozen=True)
class Footprint:
    """The size of a data set: bytes of its arrays, and of temporary buffers while they are loaded; rows to train on."""

    arrays: int
    loading: int
    rows: int | None = None  # an upper bound; None if not known


@dataclass(frozen=True)
class Split:
    """Arrays by name, all with the same number of rows: [N, ...]."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


@dataclass(frozen=True)
class Dataset:
    """A whole data set in memory, as stored."""

    name: str
    train: Split
    test: Split
