"""The data set of a program: how its arrays are stored, and whether they fit the model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from compiler.cli.cache import Build
from compiler.cli.programs import ProgramFile
from runtime.datasets import BUILT_IN, describe, find, is_here, load
from runtime.datasets.checks import check, check_values
from runtime.datasets.dataset import ArrayInfo, Dataset, Split
from runtime.errors import RuntimeUserError, quoted
from runtime.program import Manifest
from runtime.training.run_data import RunData, fingerprint_of, former
from runtime.training.run_folder import RunFolder, program_hash


def data_of_run(file: ProgramFile) -> RunData | None:
    """What arrays mean in the run that a program belongs to; None if there is none, or if it is from before data.json.

    Raises RuntimeUserError for a damaged data.json.
    """
    return RunFolder(file.run, "").read_data() if file.run else None


def located(data: str, file: ProgramFile, flags: argparse.Namespace) -> str:
    """The name or path of the data set `data` that a program names; for the program of a run, where its data are now.

    That is the path in data.json; else the path as given, or relative to the folders around the run. Raises
    RuntimeUserError if it is none of these.
    """
    known = data_of_run(file)
    if known is None or file.run is None or flags.data is not None or data in BUILT_IN:
        return data
    inside, name = file.path.parent == file.run, os.path.expanduser(data)
    same = inside or os.path.basename(name) == os.path.basename(known.data)
    if same and os.path.exists(known.data):
        return data if os.path.abspath(name) == known.data else known.data
    if is_here(data, flags.data_dir):
        return data
    run = file.run.resolve()
    places = [str(folder / name) for folder in (run, *run.parents[:2], file.path.resolve().parent)]
    for place in places:
        if os.path.exists(place):
            return place
    raise RuntimeUserError(
        f"the data of the run {quoted(str(file.run))} are not there any more",
        expected=f"a .npz file or a folder of .npy files, {quoted(known.data)}",
        found=f"nothing there, nor at {', '.join(map(quoted, dict.fromkeys(places)))}",
        hint="--data PATH names the place where they are now",
    )


def absolute(data: str, flags: argparse.Namespace) -> str:
    """What data.json calls a data set: the name of a built-in one, or an absolute path."""
    return data if data in BUILT_IN else os.path.abspath(find(data, flags.data_dir))


def described(data: str, file: ProgramFile, flags: argparse.Namespace) -> dict[str, ArrayInfo]:
    """The arrays of a data set, from headers; for the program of a run with the scales that they have in it."""
    arrays = describe(located(data, file, flags), flags.data_dir)
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


def warn_of_changed_data(known: RunData | None, dataset: Dataset, build: Build, flags: argparse.Namespace) -> None:
    """Warns if the values at the path of a run's data are not those that it was trained on."""
    same_place = known is not None and (flags.data is None or absolute(build.data, flags) == known.data)
    if known is None or not same_place or fingerprint_of(dataset, build.manifest) == known.fingerprint:
        return
    now = {part: len(split) for part, split in dataset.splits.items()}
    warning = RuntimeUserError(
        f"{quoted(build.data)} has changed since the run was trained",
        expected=f"the same values, {shown_rows(known.rows)}",
        found=shown_rows(now) + (" with other values" if known.rows == now else ""),
    ).as_warning("rows that were for training may now be for testing" if dataset.drawn else None)
    print(warning, file=sys.stderr)


def checked_data_of_run(file: ProgramFile, manifest: Manifest) -> RunData | None:
    """`data_of_run` for a compiled program; also raises RuntimeUserError for a data.json of another program."""
    known = data_of_run(file)
    if known and file.run:
        known.check(manifest, quoted(str(RunFolder(file.run, "").data)))
    return known


def data_to_train(
    dataset: Dataset,
    stored: Mapping[str, ArrayInfo],
    file: ProgramFile,
    build: Build,
    folder: RunFolder | None,
    flags: argparse.Namespace,
) -> RunData | None:
    """What arrays mean in a new run, or in that of the folder; warns of values that are probably not meant so.

    Raises RuntimeUserError if a resumed run would continue on other data.
    """
    known = checked_data_of_run(file, build.manifest)
    if folder is None:
        known = RunData.of(absolute(build.data, flags), stored, dataset, build.manifest)
        for warning in known.faint_bytes():
            print(warning, file=sys.stderr)
    elif known and program_hash(build.text) == folder.program_hash:  # else `resume` refuses the program
        known = check_same_data(known, dataset, build.data, build, folder, flags)
    compared = {part: split for part, split in dataset.splits.items() if folder or part != "training"}
    warn_of_values(known, compared, build.manifest)
    return known


def check_same_data(
    known: RunData, dataset: Dataset, data: str, build: Build, folder: RunFolder, flags: argparse.Namespace
) -> RunData:
    """What the arrays of a resumed run mean: as before, with the data on which it continues.

    Raises RuntimeUserError for other data without --other-data.
    """
    found = fingerprint_of(dataset, build.manifest)
    if found != known.fingerprint and not flags.other_data:
        rows, now = known.rows, {part: len(split) for part, split in dataset.splits.items()}
        raise RuntimeUserError(
            f"these are not the data that the run {quoted(str(folder.path))} was trained on",
            expected=f"the values of {quoted(known.data)}, {shown_rows(rows)}",
            found=f"{quoted(data)}, {shown_rows(now)}" + (" with other values" if rows == now else ""),
            hint="--other-data continues on these data; figures from before and after cannot be compared then",
        )
    rows = {part: len(split) for part, split in dataset.splits.items()}
    return replace(known, data=absolute(data, flags), rows=rows, drawn=dataset.drawn, fingerprint=found)


def shown_rows(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in rows.items()) + " rows"
