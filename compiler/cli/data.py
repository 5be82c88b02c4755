"""The data set of a program: how its arrays are stored, and whether they fit the model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from runtime.datasets import ArrayInfo, Dataset, Footprint, describe, footprint, load
from runtime.datasets.checks import check, check_values
from runtime.program import Manifest

Arrays = dict[str, ArrayInfo]


def describe_data(data: str, flags: argparse.Namespace) -> Arrays:
    return describe(data, flags.data_dir)


def footprint_of(data: str, flags: argparse.Namespace) -> Footprint:
    return footprint(data, flags.data_dir)


def storage_of(arrays: Arrays) -> dict[str, list[Any]]:
    """What the compiled step depends on: dtype and scale of each array."""
    return {name: [info.dtype, info.scale] for name, info in arrays.items()}


def check_data(arrays: Arrays, manifest: Manifest) -> None:
    """Raises RuntimeUserError if the data set lacks an array of the model, or has one of another shape."""
    check(arrays, (*manifest.inputs, *manifest.targets))


def load_data(data: str, manifest: Manifest, flags: argparse.Namespace) -> Dataset:
    """Reads a data set; raises RuntimeUserError for values that the model cannot take."""
    dataset = load(data, flags.data_dir, lambda text: print(text, file=sys.stderr))
    check_values(dataset, (*manifest.inputs, *manifest.targets), manifest.classes)
    return dataset
