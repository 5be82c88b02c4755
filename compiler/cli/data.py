"""The data set of a program: how its arrays are stored, and whether they fit the model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from compiler.cli.programs import ProgramFile
from runtime.datasets import describe, load
from runtime.datasets.checks import check, check_values
from runtime.datasets.dataset import ArrayInfo, Dataset, Split
from runtime.errors import quoted
from runtime.program import Manifest
from runtime.training.run_data import RunData, former
from runtime.training.run_folder import RunFolder


def data_of_run(file: ProgramFile) -> RunData | None:
    """What arrays mean in the run that a program belongs to; None if there is none, or if it is from before data.json.

    Raises RuntimeUserError for a damaged data.json.
    """
    return RunFolder(file.run, "").read_data() if file.run else None


def described(data: str, file: ProgramFile, flags: argparse.Namespace) -> dict[str, ArrayInfo]:
    """The arrays of a data set, from headers; for the program of a run with the scales that they have in it."""
    arrays = describe(data, flags.data_dir)
    if file.run is None:
        return arrays
    known = data_of_run(file)
    return known.applied(arrays) if known else former(data, arrays)


def warn_of_former_rule(file: ProgramFile) -> None:
    """Says how arrays are scaled for a run from before data.json."""
    if file.run and data_of_run(file) is None:
        folder = quoted(str(file.run))
        text = (
            f"{folder} has no data.json: images of mnist and digits are divided by 255, other arrays used as they are"
        )
        print(f"warning: {text}", file=sys.stderr)


def storage_of(arrays: Mapping[str, ArrayInfo]) -> dict[str, list[Any]]:
    """What the compiled step depends on: dtype and scale of each array."""
    return {name: [info.dtype, info.scale] for name, info in arrays.items()}


def check_data(arrays: Mapping[str, ArrayInfo], manifest: Manifest) -> None:
    """Raises RuntimeUserError if the data set lacks an array of the model, or has one of another shape."""
    check(arrays, (*manifest.inputs, *manifest.targets))


def split_seed(manifest: Manifest, file: ProgramFile | None) -> int | None:
    """The seed that draws the test rows: that of the run, or of the settings; None for runs from before data.json."""
    if file is None or file.run is None:
        return manifest.settings.seed
    known = data_of_run(file)
    return known.seed if known else None


def load_data(data: str, manifest: Manifest, flags: argparse.Namespace, file: ProgramFile | None = None) -> Dataset:
    """Reads a data set and sets rows apart, for the program of a run as in the run.

    Raises RuntimeUserError for values that the model cannot take.
    """
    seed = split_seed(manifest, file)
    dataset = load(data, flags.data_dir, lambda text: print(text, file=sys.stderr), manifest.dtypes, seed)
    check_values(dataset, (*manifest.inputs, *manifest.targets), manifest.classes)
    return dataset.with_validation(manifest.settings.validation, manifest.settings.seed if seed is None else seed)


def warn_of_values(known: RunData | None, splits: Mapping[str, Split], manifest: Manifest) -> None:
    """Warns of values in the named splits that are far from those that a run was trained on."""
    for part, split in splits.items():
        for warning in known.warnings(split.arrays, manifest.scales, part) if known else ():
            print(warning, file=sys.stderr)


def checked_data_of_run(file: ProgramFile, manifest: Manifest) -> RunData | None:
    """`data_of_run` for a compiled program; also raises RuntimeUserError for a data.json of another program."""
    known = data_of_run(file)
    if known and file.run:
        known.check(manifest, quoted(str(RunFolder(file.run, "").data)))
    return known
