"""Data sets of a file: arrays by name, for training and for testing, with a row for each example."""

from __future__ import annotations

import os
from collections.abc import Callable

from runtime.datasets import arrays, mnist
from runtime.datasets.digits import TEST, TRAIN, draw_sheet
from runtime.errors import RuntimeUserError
from runtime.program import Arrays


def load_digits(path: str | None) -> tuple[Arrays, Arrays]:
    """Digits that are drawn here, if no other data are named."""
    return load_arrays(path) if path else (draw_sheet(TRAIN).arrays, draw_sheet(TEST).arrays)


def load_mnist(path: str | None) -> tuple[Arrays, Arrays]:
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
    train, test = mnist.read(paths)
    return train.arrays, test.arrays


def load_arrays(path: str) -> tuple[Arrays, Arrays]:
    """The arrays of a .npz file, or of a folder of .npy files."""
    dataset = arrays.load(os.path.expanduser(path))
    return dataset.train.arrays, dataset.test.arrays


load_data: Callable[[str], tuple[Arrays, Arrays]] = load_arrays  # in a file, the reader of its data set
