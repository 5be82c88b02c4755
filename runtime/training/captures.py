"""A captured training step that gave a NaN or an infinity, and its file, a dump, which `nnc replay` runs again.

A dump is one safetensors file: the variables before the step, its batch, and as text everything that is needed to
compile the program again. It is written completely or not at all; a SHA-256 over everything is checked before use.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.datasets.files import reading
from runtime.errors import IndexOutside, RuntimeUserError
from runtime.feeding import HostRunner, NotFinite
from runtime.program import FIRST_EXAMPLE, Arrays, LoadedProgram
from runtime.training.checkpoint import write_atomically
from runtime.training.conditions import conditions
from runtime.training.tensor_files import TensorFile, encoded

FORMAT = 2
KIND = "nnc numerics"
STORED_TYPES = {"u8", "bool", "i32", "i64", "f32", "f64"}  # of data sets
PARTS = ("variable/", "input/", "batch/")  # prefixes of the names of tensors


@dataclass(frozen=True)
class Recipe:
    """Everything that is needed to compile a program to the same code again."""

    text: str  # the resolved program
    program: str  # its hash
    model: str
    passes: tuple[str, ...]
    storage: Mapping[str, Sequence[Any]]  # array of the data set -> dtype and scale
    rows: int | None = None  # of the largest batch that it was planned for


@dataclass(frozen=True)
class StepResult:
    """The result of a step: the bits of its loss, and a hash of each variable's bits after it."""

    loss: str
    variables: Mapping[str, str]

    @classmethod
    def of(cls, loss: float, variables: Mapping[str, np.ndarray]) -> StepResult:
        hashes = {name: hashlib.sha256(a.tobytes()).hexdigest() for name, a in variables.items()}
        return cls(loss.hex(), hashes)

    def differing(self, other: StepResult) -> list[str]:
        """The values that differ: `loss`, and names of variables."""
        names = [name for name, hash in self.variables.items() if other.variables.get(name) != hash]
        return (["loss"] if self.loss != other.loss else []) + names


@dataclass(frozen=True)
class Capture:
    """A step of a graph, `train_step` or `evaluate`, that gave a NaN or an infinity."""

    graph: str
    epoch: int
    step: int  # of the epoch, counted from 1
    steps: int  # of the epoch
    indices: np.ndarray  # of the examples in the data
    inputs: Arrays
    before: Arrays  # the variables
    result: StepResult
    bad: tuple[str, ...]  # variables that were finite before the step and are not after it
    data: str  # "training", "test" or "validation"
    conditions: Mapping[str, Any]  # of the run (training/conditions.py); of an untrusted file: anything

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"numerics-{self.epoch}-{self.step}.safetensors"

    @property
    def loss(self) -> float:
        return float.fromhex(self.result.loss)

    def run(self, program: LoadedProgram) -> StepResult:
        """Runs the step again in a program that was compiled from its recipe; may raise IndexOutside."""
        count = len(self.indices)
        program.assign(self.before)
        with np.errstate(all="ignore"):
            program.prepare(self.graph)
            run, views, outputs = program.views(self.graph, count)
            for name, view in views.items():
                view[...] = self.inputs[name]
            try:
                run()
            except IndexOutside as outside:
                outside.of_step(self.graph, self.indices, self.step, self.steps)
                outside.when = f"epoch {self.epoch}, {outside.when}"
                raise
        return StepResult.of(outputs["loss"].item(), program.variables())


# Finding it ----------------------------------------------------------------------------------------------------------


def first_bad_batch(runner: HostRunner, order: np.ndarray, size: int) -> NotFinite | None:
    """Evaluates until the loss is not finite."""
    for step, (_, outputs) in enumerate(runner.batches(order, size), 1):
        loss = outputs["loss"].item()
        if not math.isfinite(loss):
            return NotFinite(step, loss)
    return None


def capture_of(
    graph: str, data: str, runner: HostRunner, order: np.ndarray, size: int, epoch: int, bad: NotFinite, before: Arrays
) -> Capture:
    """The capture of a step that has just run, on the training, test or validation data."""
    start = (bad.step - 1) * size
    indices = order[start : start + size]
    inputs = {name: array[indices] for name, array in runner.arrays.items()}
    if FIRST_EXAMPLE in runner.program.inputs(graph, len(indices)):
        inputs[FIRST_EXAMPLE] = np.array(start, np.int64)
    return Capture(
        graph=graph,
        epoch=epoch,
        step=bad.step,
        steps=-(-len(order) // size),
        indices=indices,
        inputs=inputs,
        before={name: array.copy() for name, array in before.items()},
        result=StepResult.of(bad.loss, runner.program.variables()),
        bad=bad.variables,
        data=data,
        conditions=conditions(runner.program),
    )


# The file -------------------------------------------------------------------------------------------------------------


def write_dump(path: Path, capture: Capture, recipe: Recipe) -> None:
    """Writes a dump atomically; raises RuntimeUserError if the disk fails."""
    groups = (capture.before, capture.inputs, {"indices": capture.indices.astype(np.int64)})
    arrays = {part + name: array for part, group in zip(PARTS, groups, strict=True) for name, array in group.items()}
    values = {
        "kind": KIND,
        "format": FORMAT,
        "recipe": asdict(recipe),
        "conditions": capture.conditions,
        "found": asdict(capture.result),
        **{name: getattr(capture, name) for name in ("graph", "epoch", "step", "steps", "bad", "data")},
    }
    write_atomically(path, encoded(arrays, values, with_types=True))


def read_dump(path: Path) -> tuple[Capture, Recipe]:
    """The step in a file, and the recipe of its program.

    Raises RuntimeUserError for a file that is missing, damaged, or not a dump.
    """
    dump = TensorFile(path, "a dump of a training step")
    with reading(str(path)) as file:
        header, start = dump.read_header(file)
        metadata = header.get("__metadata__", {})
        if metadata.get("kind") != json.dumps(KIND):
            raise RuntimeUserError(
                f"{dump.name} is not a dump of a training step",
                expected="numerics-EPOCH-STEP.safetensors of a run folder",
                found="another safetensors file",
            )
        dump.check_format(metadata.get("format"), FORMAT)
        data = start + file.read()
    arrays = dump.decoded(data, metadata, with_types=True)
    try:
        values = {name: json.loads(text) for name, text in metadata.items() if name != "sha256"}
        return parts_of(values, arrays)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise dump.damaged("its contents are not valid") from error


def parts_of(values: dict[str, Any], arrays: Arrays) -> tuple[Capture, Recipe]:
    """Capture and recipe; raises KeyError, TypeError or ValueError if they are not valid."""
    variables, inputs, batch = (
        {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)} for part in PARTS
    )
    recipe, result = recipe_from(**values["recipe"]), StepResult(**values["found"])
    if values["graph"] not in ("train_step", "evaluate"):
        raise ValueError(values["graph"])
    data = values.get("data", "training" if values["graph"] == "train_step" else "test")
    if data not in ("training", "test", "validation"):
        raise ValueError(data)
    indices = batch["indices"]
    if indices.ndim != 1 or indices.dtype != np.int64:
        raise ValueError("indices")
    capture = Capture(
        graph=values["graph"],
        epoch=int(values["epoch"]),
        step=int(values["step"]),
        steps=int(values["steps"]),
        indices=indices,
        inputs=inputs,
        before=variables,
        result=StepResult(float.fromhex(result.loss).hex(), dict(result.variables)),
        bad=tuple(map(str, values["bad"])),
        data=data,
        conditions=dict(values["conditions"]),
    )
    return capture, recipe


def recipe_from(
    text: str, program: str, model: str, passes: Sequence[str], storage: Mapping[str, Any], rows: int | None = None
) -> Recipe:
    """Raises TypeError or ValueError for values that are not valid."""
    stored = {name: (dtype, float(scale)) for name, (dtype, scale) in storage.items()}
    unknown = {dtype for dtype, _ in stored.values()} - STORED_TYPES
    if unknown or not all(isinstance(each, str) for each in (text, program, model, *passes)):
        raise ValueError("not a recipe")
    if rows is not None and (type(rows) is not int or rows < 1):
        raise ValueError("not a number of rows")
    return Recipe(text, program, model, tuple(passes), stored, rows)
