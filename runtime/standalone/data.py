"""Data sets of a file: arrays by name, for training and for testing, with a row for each example."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np

from runtime.datasets.arrays import HELD_OUT, TEST_SUFFIX
from runtime.datasets.digits import TEST, TRAIN, draw_sheet
from runtime.datasets.mnist import GZIP_MAGIC
from runtime.standalone.settings import CLASSES, Arrays

MNIST = {"image": "images-idx3-ubyte", "label": "labels-idx1-ubyte"}


def load_digits(path: str | None) -> tuple[Arrays, Arrays]:
    """Digits drawn on the spot, where no data are named."""
    return load_arrays(path) if path else (draw_sheet(TRAIN).arrays, draw_sheet(TEST).arrays)


def load_mnist(path: str | None) -> tuple[Arrays, Arrays]:
    """The four files of MNIST in a folder, or arrays of the same form from a .npz file."""
    if path is None:
        raise SystemExit("error: name the folder with the four files of MNIST: --data FOLDER")
    if not os.path.isdir(path):
        return load_arrays(path)
    train, test = (
        {name: read_idx(path, f"{split}-{end}") for name, end in MNIST.items()} for split in ("train", "t10k")
    )
    return train, test


def read_idx(folder: str, name: str) -> np.ndarray:
    """An array of bytes from a file in the IDX format, zipped or not."""
    candidates = [
        Path(folder, each + suffix) for each in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")
    ]
    path = next(filter(Path.is_file, candidates), None)
    if path is None:
        raise SystemExit(f"error: there is no {name}, zipped or not, in {folder}: name another folder with --data")
    content = path.read_bytes()
    content = gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    rank = content[3]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(np.frombuffer(content, ">u4", rank, 4))


def load_arrays(path: str) -> tuple[Arrays, Arrays]:
    """The arrays of a .npz file, or of a folder of .npy files.

    The test rows of an array x are the array x_test; without such arrays, the last sixth is held out.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        arrays = {file.stem: np.load(file) for file in sorted(Path(path).glob("*.npy"))}
    elif path.endswith(".npz") and os.path.isfile(path):
        with np.load(path) as file:
            arrays = dict(file)
    else:
        arrays = {}
    if not arrays:
        raise SystemExit(f"error: {path} is no .npz file and no folder of .npy files: name another with --data")
    train = {name: array for name, array in arrays.items() if not name.endswith(TEST_SUFFIX)}
    if len(train) < len(arrays):
        return train, {name: arrays[name + TEST_SUFFIX] for name in train}
    rows = len(next(iter(train.values())))
    kept = rows - max(1, rows // HELD_OUT)
    return {name: array[:kept] for name, array in train.items()}, {name: array[kept:] for name, array in train.items()}


load_data: Callable[[str], tuple[Arrays, Arrays]] = load_arrays  # in a file, what its data set is read with


def fitted(arrays: Arrays, inputs: Arrays) -> Arrays:
    """The arrays that a graph reads, in the shape and dtype of its inputs. Whole numbers never become floats: how they
    are scaled is part of the graph."""
    if missing := inputs.keys() - arrays.keys():
        raise SystemExit(f"error: the data lack {', '.join(sorted(missing))}; they have {', '.join(arrays)}")
    fits = {name: fit(name, arrays[name], view) for name, view in inputs.items()}
    if len({len(array) for array in fits.values()}) > 1:
        raise SystemExit(f"error: the arrays {', '.join(fits)} have different numbers of rows")
    return fits


def fit(name: str, array: np.ndarray, view: np.ndarray) -> np.ndarray:
    """One array [N, …] in the shape and dtype of an input; raises SystemExit where it does not fit."""
    shape = view.shape[1:]
    if array.ndim == 0 or len(array) == 0 or prod(array.shape[1:]) != prod(shape):
        raise SystemExit(f"error: rows of {name} have shape {shape}, not {array.shape[1:]}")
    same_kind = array.dtype.kind.replace("u", "i") == view.dtype.kind.replace("u", "i")
    converted = array.reshape(len(array), *shape).astype(view.dtype, order="C", copy=False)
    if not same_kind or (view.dtype.kind != "f" and not np.array_equal(converted.ravel(), array.ravel())):
        raise SystemExit(f"error: {name} holds {view.dtype.name}, not {array.dtype.name}")
    if name in CLASSES and not 0 <= converted.min() <= converted.max() < CLASSES[name]:
        raise SystemExit(f"error: {name} holds whole numbers from 0 to {CLASSES[name] - 1}")
    return converted
