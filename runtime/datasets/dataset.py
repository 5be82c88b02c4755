"""The form of a data set: named arrays in two splits, and their types for the compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Report = Callable[[str], None]
"""Shows the user a line about progress: a download, a folder that is read."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array as the compiler sees it.

    `dtype` is "u8", "bool", "i32", "i64" or "f32", `shape` is that of one example, and the compiled step multiplies the
    stored values by `scale`.
    """

    dtype: str
    shape: tuple[int, ...]
    scale: float


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
    """A whole data set in memory, as stored. `scale` has the factor of every array, by name."""

    name: str
    train: Split
    test: Split
    scale: dict[str, float]
