"""Checkpoints: all variables of a program and its position in training, in one safetensors file.

A file is written completely or not at all, and read completely or not at all: names, dtypes, shapes, sizes and a
SHA-256 are checked before the first variable of the program changes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from runtime.datasets.files import kind_of, reading, reason
from runtime.errors import RuntimeUserError, quoted
from runtime.program import LANGUAGE_TYPES, LoadedProgram
from runtime.training.results import EpochResult, Position
from runtime.training.tensor_files import TensorFile, encoded

FORMAT = 1
OF_ANOTHER_PROGRAM = "was written by another program"
SHORT_NAMES = {name.upper(): name for name in LANGUAGE_TYPES.values()}  # by that of safetensors headers


def write_atomically(path: Path, data: bytes, backup: Path | None = None) -> None:
    """Replaces a file so that, whatever happens, it has all of the old or all of the new bytes.

    With `backup`, the old file gets that name. Raises RuntimeUserError if the disk fails, and if the path is that of a
    folder, a pipe or a device, which must not be replaced by a file.
    """
    if not path.name:  # "." and "/", which an empty flag becomes
        raise RuntimeUserError(f"cannot write {quoted(str(path))}", expected="a file name", found="a folder")
    temporary = _temporary(path)
    try:
        if path.exists() and not path.is_file():
            found = kind_of(path.stat().st_mode)
            raise RuntimeUserError(f"cannot write {quoted(str(path))}", expected="a file or a new name", found=found)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if backup is not None:
                _back_up(path, backup)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if hasattr(os, "O_DIRECTORY"):  # elsewhere a folder cannot be synced
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        hint = "the previous contents are still there" if os.path.exists(path) else None
        raise RuntimeUserError(f"cannot write {quoted(str(path))}", found=reason(error), hint=hint) from error


def _back_up(path: Path, backup: Path) -> None:
    """Gives a file, if it exists, a second name, and replaces whatever had that name.

    If the file system has no hard links the file is moved, and `path` is missing until the new file takes its place.
    """
    second = _temporary(backup)
    try:
        os.link(path, second)
    except OSError:
        with suppress(FileNotFoundError):  # before the first save there is none
            os.replace(path, backup)
        return
    try:
        os.replace(second, backup)
    finally:
        second.unlink(missing_ok=True)  # it still exists if both were already names of one file


def _temporary(path: Path) -> Path:
    """A name next to a file that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def save(path: Path, program: LoadedProgram, position: Position, program_hash: str) -> None:
    """Writes a checkpoint atomically. Raises RuntimeUserError, and does not change the file, if the disk fails."""
    write_atomically(path, encode(program, position, program_hash))


def encode(program: LoadedProgram, position: Position, program_hash: str) -> bytes:
    """The contents of a checkpoint of the program in its current state."""
    values = {
        "format": FORMAT,
        "model": program.manifest.model,
        "program": program_hash,
        "settings": asdict(program.manifest.settings),
        "epoch": position.epoch,
        "best_epoch": position.best_epoch,
        "best_loss": position.best_loss if position.best_epoch else None,
        "history": [result.record for result in position.history],
    }
    return encoded(program.variables(), values)


def load(path: Path, program: LoadedProgram, program_hash: str | None = None) -> Position:
    """Sets the program's variables from a checkpoint and returns its position in training.

    Raises RuntimeUserError, without changing the program, for a file that is missing, damaged or not a checkpoint, for
    tensors that are not those of the program (the first that differs is named), and, with `program_hash`, for a
    checkpoint of another program.
    """
    checkpoint, views = TensorFile(path, "a checkpoint"), program.variables()
    with reading(str(path)) as file:
        header, start = checkpoint.read_header(file)
        metadata = _metadata(checkpoint, header)
        _compare(checkpoint, header, views)
        size, expected = os.fstat(file.fileno()).st_size, len(start) + sum(view.nbytes for view in views.values())
        if size != expected:
            raise checkpoint.damaged("its size is wrong", f"{expected:,} bytes", f"{size:,} bytes")
        data = start + file.read(size)
    arrays = checkpoint.decoded(data, metadata)
    position, written_by = _position(checkpoint, metadata)
    if program_hash not in (None, written_by):
        raise RuntimeUserError(
            f"{checkpoint.name} {OF_ANOTHER_PROGRAM}",
            expected=f"program {program_hash}",
            found=f"program {written_by}",
            hint="only data, epochs, patience and checkpoint of the train block may change when a run is resumed",
        )
    program.assign(arrays)
    return position


def _metadata(checkpoint: TensorFile, header: dict[str, Any]) -> dict[str, str]:
    metadata = header.get("__metadata__", {})
    if "sha256" not in metadata or "format" not in metadata:
        raise RuntimeUserError(f"{checkpoint.name} is a safetensors file, but not a checkpoint of a training run")
    checkpoint.check_format(metadata["format"], FORMAT)
    return metadata


def _compare(checkpoint: TensorFile, header: dict[str, Any], views: Mapping[str, np.ndarray]) -> None:
    """Raises RuntimeUserError with the first tensor that is missing or different, else with the first extra one."""
    expected = {name: _shown(LANGUAGE_TYPES[view.dtype.name].upper(), list(view.shape)) for name, view in views.items()}
    found = {name: _shown(e.get("dtype"), e.get("shape")) for name, e in header.items() if name != "__metadata__"}
    for name in (*expected, *found):
        if expected.get(name) != found.get(name):
            raise RuntimeUserError(
                f"{checkpoint.name} does not fit the program: tensor {quoted(name)} differs",
                expected=expected.get(name, "no such tensor"),
                found=found.get(name, "no such tensor"),
            )


def _shown(code: object, shape: object) -> str:
    """f32[2,3] for "F32" and [2, 3]."""
    dimensions = ",".join(map(str, shape)) if isinstance(shape, list) else "?"
    return f"{SHORT_NAMES.get(str(code)) or quoted(str(code))}[{quoted(dimensions)[1:-1]}]"


def _position(checkpoint: TensorFile, metadata: Mapping[str, str]) -> tuple[Position, str]:
    """The position and the hash of the program from the metadata of a checkpoint."""
    try:
        values = {name: json.loads(text) for name, text in metadata.items() if name != "sha256"}
        history = tuple(_result(entry) for entry in values["history"])
        best_loss = math.inf if values["best_loss"] is None else float(values["best_loss"])
        epoch, best_epoch = int(values["epoch"]), int(values["best_epoch"])
        if not 0 <= best_epoch <= epoch or len(history) != min(epoch, history[-1].kept if history else 1):
            raise ValueError("epochs that contradict each other")
        if math.isnan(best_loss):
            raise ValueError("no epoch could ever be better")
        return Position(epoch, best_epoch, best_loss, history), str(values["program"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise checkpoint.damaged("its metadata is not valid") from error


def _result(entry: Mapping[str, Any]) -> EpochResult:
    """An epoch of the history; raises ValueError or TypeError if it is not valid."""
    result = EpochResult(**entry)
    for means in (result.train, result.test, result.watched):
        if not isinstance(means, dict) or "loss" not in means:
            raise ValueError("an epoch without a loss")
    if not all(type(number) in (int, float) for number in result.numbers):
        raise ValueError("a result that is not a number")
    return result
