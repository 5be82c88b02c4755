"""Data sets by name or path: `digits` is drawn at start-up, `mnist` is found or downloaded, a path is the user's data.

A new built-in data set is a module with `INFO` (the arrays of an example), `FOOTPRINT`, `is_here(data_dir)` and
`load(data_dir, report)`, and a row in `BUILT_IN`. Only the module of the data set in use is imported: a quick start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

from runtime.datasets.dataset import ArrayInfo, Dataset, Footprint, Report

BUILT_IN = {"digits": "runtime.datasets.digits", "mnist": "runtime.datasets.mnist"}
USER_DATA = "runtime.datasets.arrays"

PathLike = str | os.PathLike[str]


def describe(name_or_path: PathLike, data_dir: PathLike | None = None) -> dict[str, ArrayInfo]:
    """The arrays of a data set by name, from headers only.

    Raises RuntimeUserError if there is no such data set or its headers are not valid.
    """
    module, path = _find(name_or_path, data_dir)
    return module.describe(path) if path else dict(module.INFO)


def footprint(
    name_or_path: PathLike, data_dir: PathLike | None = None, dtypes: Mapping[str, str] | None = None
) -> Footprint:
    """The memory that `load` needs, with the same `dtypes`, from headers only.

    It is an upper bound for data sets that may have fewer rows.

    Raises RuntimeUserError as `describe` does.
    """
    module, path = _find(name_or_path, data_dir)
    return module.footprint(path, dtypes) if path else module.FOOTPRINT


def is_here(name_or_path: PathLike, data_dir: PathLike | None = None) -> bool:
    """Whether `load` can read the data without a download; raises RuntimeUserError for a wrong folder."""
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return import_module(BUILT_IN[name]).is_here(_folder(data_dir))
    return import_module(USER_DATA).is_here(name, _folder(data_dir))


def find(name_or_path: PathLike, data_dir: PathLike | None = None) -> str:
    """The path of the user's data; raises RuntimeUserError if there is nothing at it or below `data_dir`."""
    return _find(name_or_path, data_dir)[1]


def load(
    name_or_path: PathLike,
    data_dir: PathLike | None = None,
    report: Report = lambda text: None,
    dtypes: Mapping[str, str] | None = None,
    seed: int | None = 0,
) -> Dataset:
    """A whole data set in memory: the arrays that `describe` lists, for training and for testing.

    With `dtypes`, of the inputs and targets of a program by name, only these are read: as stored, except that f64 for
    f32 is converted, and so are floats for whole numbers, if they are whole. If there are no test rows, `seed` draws
    them from all rows; None takes the last.
    `data_dir` is a folder to search first; `report` is called with a line for each download. Raises RuntimeUserError
    if the data are missing, damaged or larger than memory.
    """
    module, path = _find(name_or_path, data_dir)
    return module.load(path, dtypes, seed) if path else module.load(_folder(data_dir), report)


def _find(name_or_path: PathLike, data_dir: PathLike | None) -> tuple[ModuleType, str]:
    """The module that reads a data set, and the path of the user's data, empty for a built-in data set."""
    name = os.fspath(name_or_path)
    if name in BUILT_IN:
        return import_module(BUILT_IN[name]), ""
    arrays = import_module(USER_DATA)
    return arrays, arrays.find(name, _folder(data_dir), BUILT_IN)


def _folder(data_dir: PathLike | None) -> str | None:
    return None if data_dir is None else os.path.expanduser(os.fspath(data_dir))
