"""Data sets of a file: arrays by name, for training and for testing, with a row for each example."""

from __future__ import annotations

import os
from collections.abc import Callable

from runtime.datasets import arrays, mnist
from runtime.datasets.dataset import Dataset
from runtime.datasets.digits import TEST, TRAIN, draw_sheet
from runtime.errors import RuntimeUserError
from runtime.standalone.settings import DTYPES, SEED


def load_digits(path: str | None) -> Dataset:
    """Digits that are drawn here, if no other data are named."""
    return load_arrays(path) if path else Dataset("digits", draw_sheet(TRAIN), draw_sheet(TEST))


def load_mnist(path: str | None) -> Dataset:
    """The four files of MNIST in a folder, or arrays of the same form from a .npz file."""
    if path is None:
        raise RuntimeUserError(
            "MNIST is not part of this file", hint="pass the folder with its four files: --data FOLDER"
        )
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        return load_arrays(path)
    paths = mnist.files_in(folder)
    mnist.require_all(paths, folder)
    return Dataset("mnist", *mnist.read(paths))


def load_arrays(path: str) -> Dataset:
    """The arrays of a .npz file, or of a folder of .npy files."""
    return arrays.load(os.path.expanduser(path), DTYPES or None, SEED)


load_data: Callable[[str], Dataset] = load_arrays  # in a file, the reader of its data set
