"""What a data set is to the rest of the program: named arrays in two splits, and their types for the compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Report = Callable[[str], None]
"""Takes a line on what is going on (a download, a folder that is read), to be shown to the user."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array as the compiler sees it.

    `dtype` is "u8", "bool", "i32", "i64" or "f32", `shape` that of a single example, and `scale` the factor by which
    the compiled step multiplies the stored values.
    """

    dtype: str
    shape: tuple[int, ...]
    scale: float


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory: what the arrays of a data set take, and what loading them takes for a while beside that."""

    arrays: int
    loading: int


@dataclass(frozen=True)
class Split:
    """Arrays by name, all with the same number of rows: [N, ...]."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


@dataclass(frozen=True)
class Dataset:
    """A whole data set in memory, as stored. `scale` holds the factor of every array, by name."""

    name: str
    train: Split
    test: Split
    scale: dict[str, float]
