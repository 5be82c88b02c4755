"""The data set of a program: how its arrays are stored, and whether they fit the model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from runtime.datasets import load
from runtime.datasets.checks import check, check_values
from runtime.datasets.dataset import ArrayInfo, Dataset
from runtime.program import Manifest


def storage_of(arrays: Mapping[str, ArrayInfo]) -> dict[str, list[Any]]:
    """What the compiled step depends on: dtype and scale of each array."""
    return {name: [info.dtype, info.scale] for name, info in arrays.items()}


def check_data(arrays: Mapping[str, ArrayInfo], manifest: Manifest) -> None:
    """Raises RuntimeUserError if the data set lacks an array of the model, or has one of another shape."""
    check(arrays, (*manifest.inputs, *manifest.targets))


def load_data(data: str, manifest: Manifest, flags: argparse.Namespace) -> Dataset:
    """Reads a data set; raises RuntimeUserError for values that the model cannot take."""
    dataset = load(data, flags.data_dir, lambda text: print(text, file=sys.stderr))
    check_values(dataset, (*manifest.inputs, *manifest.targets), manifest.classes)
    return dataset
