"""Data sets by name or path: `digits` is drawn on the spot, `mnist` is found or downloaded, a path is the user's own.

A new built-in data set is a module with `describe()`, `footprint()`, `is_here(data_dir)` and `load(data_dir, report)`,
and a row in `BUILT_IN`.
"""

from __future__ import annotations

import os
from importlib import import_module

from runtime.datasets.dataset import ArrayInfo, Dataset, Footprint, Report, Split

__all__ = [
    "BUILT_IN",
    "ArrayInfo",
    "Dataset",
    "Footprint",
    "Report",
    "Split",
    "describe",
    "footprint",
    "is_here",
    "load",
]

BUILT_IN = {
    "digits": "runtime.datasets.digits",
    "mnist": "runtime.datasets.mnist",
}

PathLike = str | os.PathLike[str]


def describe(name_or_path: PathLike, data_dir: PathLike | None = None) -> dict[str, ArrayInfo]:
    """The arrays of a data set by name, from headers alone.

    Raises RuntimeUserError where there is no such data set or its headers are not sound.
    """
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return import_module(BUILT_IN[name]).describe()
    from runtime.datasets import arrays

    return arrays.describe(arrays.find(name, _folder(data_dir), BUILT_IN))


def footprint(name_or_path: PathLike, data_dir: PathLike | None = None) -> Footprint:
    """The memory that `load` takes, from headers alone; at most so much where files may hold less than is published.

    Raises RuntimeUserError as `describe` does.
    """
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return import_module(BUILT_IN[name]).footprint()
    from runtime.datasets import arrays

    return arrays.footprint(arrays.find(name, _folder(data_dir), BUILT_IN))


def is_here(name_or_path: PathLike, data_dir: PathLike | None = None) -> bool:
    """Whether there are data that `load` can read without a download; raises RuntimeUserError for a wrong folder."""
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return import_module(BUILT_IN[name]).is_here(_folder(data_dir))
    from runtime.datasets import arrays

    return arrays.is_here(name, _folder(data_dir))


def load(name_or_path: PathLike, data_dir: PathLike | None = None, report: Report = lambda text: None) -> Dataset:
    """A whole data set in memory, as stored: the arrays that `describe` names, for training and for testing.

    `data_dir` is a folder to look in first; `report` is told of downloads. Raises RuntimeUserError where the data are
    missing, damaged or larger than memory.
    """
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return import_module(BUILT_IN[name]).load(_folder(data_dir), report)
    from runtime.datasets import arrays

    return arrays.load(arrays.find(name, _folder(data_dir), BUILT_IN))


def _folder(data_dir: PathLike | None) -> str | None:
    return None if data_dir is None else os.path.expanduser(os.fspath(data_dir))
