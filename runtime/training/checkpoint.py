"""Checkpoints: every variable of a program and its position in training, in one safetensors file.

A file is written whole or not at all, and read whole or not at all: names, dtypes, shapes, sizes and a SHA-256 of
everything are checked before the first variable of the program changes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.datasets.files import kind_of, reading, reason
from runtime.errors import RuntimeUserError, quoted
from runtime.program import Program

FORMAT = 1
HEADER_LIMIT = 16 << 20  # bytes; a file that claims a longer header is not ours
HISTORY_LIMIT = 1000  # epochs kept in a checkpoint, so that its header stays small; the log keeps all
TYPES = {  # by NumPy's name: ours, and the one in safetensors headers
    "float32": ("f32", "F32"),
    "float64": ("f64", "F64"),
    "int32": ("i32", "I32"),
    "int64": ("i64", "I64"),
    "uint8": ("u8", "U8"),
    "bool": ("bool", "BOOL"),
}
SHORT_NAMES = {code: name for name, code in TYPES.values()}


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave: loss and metrics as means over the examples, and the seconds since the start of the run."""

    epoch: int
    train: dict[str, float]
    test: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Position:
    """Where training stands at the end of an epoch. Epoch 0 is the freshly initialized program."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf  # the lowest test loss so far
    history: tuple[EpochResult, ...] = ()

    def after(self, result: EpochResult) -> Position:
        """The position one epoch later."""
        best = (self.best_epoch, self.best_loss)
        if result.test["loss"] < self.best_loss:
            best = (result.epoch, result.test["loss"])
        return Position(result.epoch, *best, (*self.history, result))


def write_atomically(path: Path, data: bytes, kept: Path | None = None) -> None:
    """Replaces a file so that, whatever happens, it holds all of the old or all of the new bytes.

    With `kept`, the old file stays under that name. Raises RuntimeUserError when the disk fails, and where the path is
    that of a folder, a pipe or a device, which must not be replaced by a file.
    """
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
            if kept is not None:
                _keep(path, kept)
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
        raise RuntimeUserError(
            f"cannot write {quoted(str(path))}", found=reason(error), hint="what was saved before is still there"
        ) from error


def _keep(path: Path, kept: Path) -> None:
    """Gives a file, if there is one, a second name, in place of whatever had that name.

    Where the file system knows no second names it is moved, and `path` is missing until the new file takes its place.
    """
    second = _temporary(kept)
    try:
        os.link(path, second)
    except OSError:
        with suppress(FileNotFoundError):  # the first save has nothing to keep
            os.replace(path, kept)
        return
    try:
        os.replace(second, kept)
    finally:
        second.unlink(missing_ok=True)  # which is still there if both were names of one file already


def _temporary(path: Path) -> Path:
    """A name beside a file that no other process takes."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def save(path: Path, program: Program, position: Position, program_hash: str) -> None:
    """Writes a checkpoint atomically. Raises RuntimeUserError, and leaves the file as it was, when the disk fails."""
    write_atomically(path, encode(program, position, program_hash))


def encode(program: Program, position: Position, program_hash: str) -> bytes:
    """The contents of a checkpoint of the program as it stands now."""
    from safetensors.numpy import save as serialize

    arrays = {name: np.asarray(view, order="C") for name, view in program.variables().items()}
    values = {
        "format": FORMAT,
        "model": program.manifest.model,
        "program": program_hash,
        "settings": asdict(program.manifest.settings),
        "epoch": position.epoch,
        "best_epoch": position.best_epoch,
        "best_loss": position.best_loss if position.best_epoch else None,
        "history": [vars(result) for result in position.history[-HISTORY_LIMIT:]],
    }
    metadata = {name: json.dumps(value) for name, value in values.items()}
    return serialize(arrays, {**metadata, "sha256": _digest(metadata, arrays)})


def load(path: Path, program: Program, program_hash: str | None = None) -> Position:
    """Sets the program's variables from a checkpoint and returns where training stood.

    Raises RuntimeUserError, with the program unchanged, for a file that is missing, damaged or not a checkpoint, whose
    tensors are not the program's (the first that differs is named), or that another program wrote, where
    `program_hash` is given.
    """
    views = program.variables()
    header, data = _read(path, views)
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialize

    try:
        arrays = deserialize(data)
    except SafetensorError as error:
        raise _damaged(path, reason(error)) from error
    metadata = header["__metadata__"]
    if metadata.pop("sha256", None) != _digest(metadata, arrays):
        raise _damaged(path, "its SHA-256 does not match")
    position, written_by = _position(path, metadata)
    if program_hash not in (None, written_by):
        raise RuntimeUserError(
            f"{quoted(str(path))} was written by another program",
            expected=f"program {program_hash}",
            found=f"program {written_by}",
            hint="only data, epochs, patience and checkpoint of the train block may change when a run is resumed",
        )
    program.assign(arrays)
    return position


def _read(path: Path, views: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    """Header and contents of a file whose size, names, dtypes and shapes are those of `views`."""
    with reading(str(path)) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise _damaged(path, "it does not begin with the header of a safetensors file")
        text = file.read(length)
        header = _header(path, text)
        _compare(path, header, views)
        expected = 8 + length + sum(view.nbytes for view in views.values())
        if size != expected:
            raise _damaged(path, "its size is wrong", expected=f"{expected:,} bytes", found=f"{size:,} bytes")
        return header, start + text + file.read(expected)


def _header(path: Path, text: bytes) -> dict[str, Any]:
    """The header of a safetensors file of ours: {name: {dtype, shape, …}} and, under "__metadata__", text by name."""
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is not JSON, or not sound") from error
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise _damaged(path, "its header is not that of a safetensors file")
    metadata = header.get("__metadata__", {})
    if "sha256" not in metadata or "format" not in metadata:
        raise RuntimeUserError(f"{quoted(str(path))} is a safetensors file, but not a checkpoint of a training run")
    if metadata["format"] != str(FORMAT):
        raise RuntimeUserError(
            f"{quoted(str(path))} is in another format of checkpoints",
            expected=str(FORMAT),
            found=quoted(str(metadata["format"])),
        )
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of a JSON object as a dict. A name that occurs twice would mean one thing here, another elsewhere."""
    if len(names := dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return names


def _compare(path: Path, header: dict[str, Any], views: Mapping[str, np.ndarray]) -> None:
    """Names the first tensor of the program that the file has not, or has otherwise; then the first one too many."""
    expected = {name: _shown(TYPES[view.dtype.name][1], list(view.shape)) for name, view in views.items()}
    found = {name: _shown(e.get("dtype"), e.get("shape")) for name, e in header.items() if name != "__metadata__"}
    for name in (*expected, *found):
        if expected.get(name) != found.get(name):
            raise RuntimeUserError(
                f"{quoted(str(path))} does not fit the program: tensor {quoted(name)} differs",
                expected=expected.get(name, "no such tensor"),
                found=found.get(name, "no such tensor"),
            )


def _shown(code: object, shape: object) -> str:
    """f32[2,3] for "F32" and [2, 3]."""
    dimensions = ",".join(map(str, shape)) if isinstance(shape, list) else "?"
    return f"{SHORT_NAMES.get(str(code)) or quoted(str(code))}[{quoted(dimensions)[1:-1]}]"


def _digest(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of metadata, names and values; dtypes and shapes are compared with the program's."""
    import hashlib

    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps(name).encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def _position(path: Path, metadata: Mapping[str, str]) -> tuple[Position, str]:
    """The position and the hash of the program from the metadata of a checkpoint."""
    try:
        values = {name: json.loads(text) for name, text in metadata.items()}
        history = tuple(_result(entry) for entry in values["history"])
        best_loss = math.inf if values["best_loss"] is None else float(values["best_loss"])
        epoch, best_epoch = int(values["epoch"]), int(values["best_epoch"])
        if not 0 <= best_epoch <= epoch or len(history) != min(epoch, HISTORY_LIMIT):
            raise ValueError("epochs that contradict each other")
        if math.isnan(best_loss):
            raise ValueError("no epoch could ever be better")
        return Position(epoch, best_epoch, best_loss, history), str(values["program"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _damaged(path, "its metadata cannot be understood") from error


def _result(entry: Mapping[str, Any]) -> EpochResult:
    """An epoch of the history; raises ValueError or TypeError for what cannot be one."""
    result = EpochResult(**entry)
    for means in (result.train, result.test):
        if not isinstance(means, dict) or "loss" not in means:
            raise ValueError("an epoch without a loss")
    numbers = [result.epoch, result.seconds, *result.train.values(), *result.test.values()]
    if not all(type(number) in (int, float) for number in numbers):
        raise ValueError("a result that is no number")
    return result


def _damaged(path: Path, what: str, expected: str | None = None, found: str | None = None) -> RuntimeUserError:
    message = f"{quoted(str(path))} is damaged or not a checkpoint: {what}"
    return RuntimeUserError(message, expected=expected, found=found)
