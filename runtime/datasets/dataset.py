"""The form of a data set: named arrays in two splits, and their types for the compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from runtime.datasets.splitting import VALIDATION_STREAM, drawn_rows, move_apart, rows_apart
from runtime.errors import RuntimeUserError

BYTE_SCALE = 1 / 255  # of unsigned bytes that feed a float input: the values of pixels become 0 … 1

Report = Callable[[str], None]
"""Shows the user a line about progress: a download, a folder that is read."""


@dataclass(frozen=True)
class ArrayInfo:
    """One array as the compiler sees it.

    `dtype` is "u8", "bool", "i32", "i64", "f32" or "f64", and `shape` is that of one example. The compiled step
    multiplies the stored values of a float input by `scale` of the train block; without one by the `scale` here, which
    a run has settled; without either by `usual_scale`.
    """

    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None


def usual_scale(dtype: str, kind: str) -> float:
    """The factor of stored values for a float input or target (`kind`) by default: u8 inputs are pixels."""
    return BYTE_SCALE if (dtype, kind) == ("u8", "input") else 1.0


def read_as(stored: str, declared: str) -> str:
    """The dtype in which an array for an input of the model is read; the compiled step converts the rest of the way.

    It is the stored one, which is mostly the smaller; but f64 becomes f32, floats become whole numbers, and i64 and i32
    become smaller types, only once and with a check of their values.
    """
    floats, smaller = ("f32", "f64"), {"f64": ("f32",), "i64": ("i32", "u8"), "i32": ("u8",)}
    narrowed = (stored in floats and declared not in floats) or declared in smaller.get(stored, ())
    return declared if narrowed else stored


@dataclass(frozen=True)
class Footprint:
    """The size of a data set: bytes of its arrays, and of temporary buffers while they are loaded; rows to train on."""

    arrays: int
    loading: int
    rows: int | None = None  # an upper bound; None if not known


@dataclass(frozen=True)
class Split:
    """Arrays by name, all with the same number of rows: [N, ...]; `places` has those of the rows in the file, [N]."""

    arrays: dict[str, np.ndarray]
    places: np.ndarray | None = None  # None: as they are here

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def place(self, row: int) -> int:
        """The row in the file, for messages."""
        return row if self.places is None else int(self.places[row])

    def parted(self, share: float, seed: int | None, stream: int) -> tuple[Split, Split]:
        """The other rows, and a share of the rows that a seed draws (None: the last); moves the rows in place."""
        if not self.arrays:
            return self, self
        indices = drawn_rows(len(self), rows_apart(len(self), share), seed, stream)
        parts = {name: move_apart(array, *indices) for name, array in self.arrays.items()}
        places = [rows if self.places is None else self.places[rows] for rows in indices]
        rest, apart = (Split({name: part[i] for name, part in parts.items()}, places[i]) for i in (0, 1))
        return rest, apart


@dataclass(frozen=True)
class Dataset:
    """A whole data set in memory, as stored.

    `drawn` says that the seed drew the test rows. `validation` are training rows that a program sets apart.
    """

    name: str
    train: Split
    test: Split
    drawn: bool = False
    validation: Split | None = None

    def with_validation(self, share: float | None, seed: int) -> Dataset:
        """The data set with a share of its training rows set apart, drawn by the seed; None: no change.

        Raises RuntimeUserError if there are too few rows.
        """
        if share is None:
            return self
        if len(self.train) < 2:
            raise RuntimeUserError("too few rows to set some apart for validation", expected="2 or more", found="1")
        train, validation = self.train.parted(share, seed, VALIDATION_STREAM)
        return replace(self, train=train, validation=validation)

    @property
    def splits(self) -> dict[str, Split]:
        """All rows, by what they are for."""
        apart = {} if self.validation is None else {"validation": self.validation}
        return {"training": self.train, **apart, "test": self.test}
