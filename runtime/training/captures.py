"""A training step that went wrong, captured so that it can be run again, and its file: `nnc replay` reads it.

A dump is one safetensors file: the variables before the step, its batch, and as text all that it takes to compile the
program again. It is written whole or not at all; a SHA-256 over everything is checked before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.datasets.files import reading, reason
from runtime.errors import RuntimeUserError, quoted
from runtime.feeding import HostRunner, NotFinite, Watch
from runtime.program import Arrays, Program
from runtime.training.checkpoint import write_atomically
from runtime.training.conditions import conditions

FORMAT = 2
KIND = "nnc numerics"
HEADER_LIMIT = 16 << 20  # bytes
STORED_TYPES = {"u8", "bool", "i32", "i64", "f32"}  # of data sets
PARTS = ("variable/", "input/", "batch/")  # what the names of tensors begin with


@dataclass(frozen=True)
class Recipe:
    """What it takes to compile a program to the same code again."""

    text: str  # the resolved program
    program: str  # its hash
    model: str
    passes: tuple[str, ...]
    storage: Mapping[str, Sequence[Any]]  # array of the data set -> dtype and scale


@dataclass(frozen=True)
class Found:
    """What a step left behind: the bits of its loss, and a hash of each variable's bits."""

    loss: str
    variables: Mapping[str, str]

    @classmethod
    def of(cls, loss: float, variables: Mapping[str, np.ndarray]) -> Found:
        hashes = {name: hashlib.sha256(a.tobytes()).hexdigest() for name, a in variables.items()}
        return cls(loss.hex(), hashes)

    def differing(self, other: Found) -> list[str]:
        """What is not the same: `loss`, and names of variables."""
        names = [name for name, known in self.variables.items() if other.variables.get(name) != known]
        return (["loss"] if self.loss != other.loss else []) + names


@dataclass(frozen=True)
class Capture:
    """A step of a graph, `train_step` or `evaluate`, that gave a NaN or an infinity."""

    graph: str
    epoch: int
    step: int  # of the epoch, counted from 1
    steps: int  # of the epoch
    indices: np.ndarray  # of the examples in the training data, or test data for `evaluate`
    inputs: Arrays
    before: Arrays  # the variables
    found: Found
    bad: tuple[str, ...]  # variables that were finite before, and are not after the step

    @property
    def name(self) -> str:
        """Of its file."""
        return f"numerics-{self.epoch}-{self.step}.safetensors"

    @property
    def loss(self) -> float:
        return float.fromhex(self.found.loss)

    def run(self, program: Program) -> Found:
        """Runs the step again in a program compiled by its recipe."""
        count = len(self.indices)
        program.assign(self.before)
        program.prepare(self.graph)
        run, views, outputs = program.views(self.graph, count)
        for name, view in views.items():
            view[...] = self.inputs[name]
        with np.errstate(all="ignore"):
            run()
        return Found.of(outputs["loss"].item(), program.variables())


# Finding it ----------------------------------------------------------------------------------------------------------


def first_bad_step(
    runner: HostRunner, order: np.ndarray, size: int, watch: Watch, received: Sequence[int]
) -> NotFinite | None:
    """Trains on until the loss, or a variable that the guard of `watch` looks at, is not finite."""
    try:
        runner.means(order, size, received, watch)
    except NotFinite as bad:
        return bad
    return None


def first_bad_batch(runner: HostRunner, order: np.ndarray, size: int) -> NotFinite | None:
    """Evaluates until the loss is not finite."""
    for step, (_, outputs) in enumerate(runner.batches(order, size), 1):
        loss = outputs["loss"].item()
        if not math.isfinite(loss):
            return NotFinite(step, loss)
    return None


def capture_of(
    graph: str, runner: HostRunner, order: np.ndarray, size: int, epoch: int, bad: NotFinite, before: Arrays
) -> Capture:
    """A step that has just run, as one that can be run again."""
    indices = order[(bad.step - 1) * size : bad.step * size]
    return Capture(
        graph=graph,
        epoch=epoch,
        step=bad.step,
        steps=-(-len(order) // size),
        indices=indices,
        inputs={name: array[indices] for name, array in runner.arrays.items()},
        before={name: array.copy() for name, array in before.items()},
        found=Found.of(bad.loss, runner.program.variables()),
        bad=bad.variables,
    )


# The file -------------------------------------------------------------------------------------------------------------


def write_dump(path: Path, capture: Capture, recipe: Recipe) -> None:
    """Writes a dump atomically; raises RuntimeUserError when the disk fails."""
    from safetensors.numpy import save as serialize

    groups = (capture.before, capture.inputs, {"indices": capture.indices.astype(np.int64)})
    arrays = {
        part + name: np.asarray(array, order="C")
        for part, group in zip(PARTS, groups, strict=True)
        for name, array in group.items()
    }
    values = {
        "kind": KIND,
        "format": FORMAT,
        "recipe": asdict(recipe),
        "conditions": conditions(),
        "found": asdict(capture.found),
        **{name: getattr(capture, name) for name in ("graph", "epoch", "step", "steps", "bad")},
    }
    metadata = {name: json.dumps(value) for name, value in values.items()}
    write_atomically(path, serialize(arrays, {**metadata, "sha256": digest(metadata, arrays)}))


def read_dump(path: Path) -> tuple[Capture, Recipe, dict[str, Any]]:
    """The step in a file, how to compile its program, and `conditions()` as it was.

    Raises RuntimeUserError for a file that is missing, damaged, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialize

    with reading(str(path)) as file:
        data = file.read(os.fstat(file.fileno()).st_size)
    metadata = metadata_of(path, data)
    try:
        arrays = deserialize(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, reason(error)) from error
    if metadata.pop("sha256", None) != digest(metadata, arrays):
        raise damaged(path, "its SHA-256 does not match")
    try:
        values = {name: json.loads(text) for name, text in metadata.items()}
        return parts_of(values, arrays)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(path, "its contents cannot be understood") from error


def metadata_of(path: Path, data: bytes) -> dict[str, str]:
    """The text in the header of a safetensors file; raises RuntimeUserError for what is no dump."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(HEADER_LIMIT, len(data) - 8):
        raise damaged(path, "it does not begin with the header of a safetensors file")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = dict(header["__metadata__"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path, "its header cannot be understood") from error
    if metadata.get("kind") != json.dumps(KIND):
        raise RuntimeUserError(
            f"{quoted(str(path))} is no dump of a training step",
            expected="numerics-EPOCH-STEP.safetensors of a run's folder",
            found="another safetensors file",
        )
    if metadata.get("format") != json.dumps(FORMAT):
        raise RuntimeUserError(
            f"{quoted(str(path))} is in another format of dumps",
            expected=str(FORMAT),
            found=quoted(str(metadata.get("format"))),
        )
    return metadata


def digest(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of metadata, and of names, types, shapes and values."""
    result = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        result.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        result.update(array.data)
    return result.hexdigest()


def parts_of(values: dict[str, Any], arrays: Arrays) -> tuple[Capture, Recipe, dict[str, Any]]:
    """Raises KeyError, TypeError or ValueError for what is no dump."""
    variables, inputs, batch = (
        {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)} for part in PARTS
    )
    recipe, found = recipe_from(**values["recipe"]), Found(**values["found"])
    if values["graph"] not in ("train_step", "evaluate"):
        raise ValueError(values["graph"])
    capture = Capture(
        graph=values["graph"],
        epoch=int(values["epoch"]),
        step=int(values["step"]),
        steps=int(values["steps"]),
        indices=batch["indices"],
        inputs=inputs,
        before=variables,
        found=Found(float.fromhex(found.loss).hex(), dict(found.variables)),
        bad=tuple(map(str, values["bad"])),
    )
    return capture, recipe, dict(values["conditions"])


def recipe_from(text: str, program: str, model: str, passes: Sequence[str], storage: Mapping[str, Any]) -> Recipe:
    """Raises TypeError or ValueError for what is no recipe."""
    kept = {name: (dtype, float(scale)) for name, (dtype, scale) in storage.items()}
    strange = {dtype for dtype, _ in kept.values()} - STORED_TYPES
    if strange or not all(isinstance(each, str) for each in (text, program, model, *passes)):
        raise ValueError("no recipe")
    return Recipe(text, program, model, tuple(passes), kept)


def damaged(path: Path, what: str) -> RuntimeUserError:
    return RuntimeUserError(f"{quoted(str(path))} is damaged or no dump of a training step: {what}")
