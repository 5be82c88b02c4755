"""From data to steps: arrays fitted to the inputs of a graph, the order of an epoch, and the loop over batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import singledispatch
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy as np

from runtime.datasets.checks import check_range
from runtime.datasets.dataset import Split
from runtime.errors import IndexOutside, RuntimeUserError, quoted
from runtime.program import COMBINE, FIRST_EXAMPLE, Arrays, BoundGraphs, LoadedProgram, examples_of
from runtime.random import generator
from runtime.training.interrupt import Interrupted
from runtime.training.numerics import Guard, Trend

SHUFFLE_STREAM = -1  # the compiler numbers the random ops of a program from 0
Batches = Iterator[tuple[int, Arrays]]  # the number of examples and the results of each run
RunType = TypeVar("RunType")


class NotFinite(Exception):
    """The loss of a step, counted from 1, is infinite or not a number, or the named variables are."""

    def __init__(self, step: int, loss: float, variables: tuple[str, ...] = ()):
        super().__init__(step, loss, variables)
        self.step, self.loss, self.variables = step, loss, variables


@dataclass(frozen=True)
class Watch:
    """Callbacks and checks of training: `show` gets the number of finished steps, at most every `interval` seconds.

    A device may check the loss only now and then: it then feeds neither the trend nor the guard.
    """

    show: Callable[[int], None]
    interval: float  # infinite: never
    trend: Trend = field(default_factory=Trend)
    guard: Guard | None = None  # of the variables, if they are checked after every step


class Runner(Protocol):
    """Runs one graph over examples, `size` at a time, in a given order; the last batch may be smaller.

    If there is a signal in `received`, Interrupted is raised after the batch, or after a few of them on a device.
    """

    examples: int

    def batches(self, order: np.ndarray, size: int, received: Sequence[int] = ()) -> Batches:
        """Yields the number of examples and the results of each run; the next run may overwrite them."""
        ...

    def means(
        self, order: np.ndarray, size: int, received: Sequence[int] = (), watch: Watch | None = None
    ) -> dict[str, Any]:
        """Loss and metrics over the examples, see `means`; with `watch`, NotFinite may be raised."""
        ...


@singledispatch
def runner_of(program: LoadedProgram, graph: str, arrays: Arrays) -> Runner:
    """Runs a graph over arrays that fit its inputs. A kind of program with another runner registers it here."""
    return HostRunner(program, graph, arrays)


# Examples -------------------------------------------------------------------------------------------------------------


def fitted(program: LoadedProgram, graph: str, arrays: Mapping[str, np.ndarray], part: str) -> Arrays:
    """`fitted_to` for a graph of a program."""
    return fitted_to(program.inputs(graph, 1), arrays, program.manifest.classes, part)


def fitted_to(inputs: Arrays, arrays: Mapping[str, np.ndarray], classes: Mapping[str, int], part: str) -> Arrays:
    """The arrays [N, …] that a graph reads, checked, in the shapes and dtypes of its inputs; views where possible.

    `part` names the data in messages. Raises RuntimeUserError with the array that is missing, empty, of another length,
    shape or type, or out of range.
    """
    result: Arrays = {}
    for name, view in examples_of(inputs).items():
        if name not in arrays:
            raise RuntimeUserError(
                f"the {part} data lack an array",
                expected=quoted(name),
                found=", ".join(map(quoted, arrays)) or "nothing",
            )
        array = arrays[name]
        label = f"array {quoted(name)} of the {part} data"
        if array.ndim == 0 or len(array) == 0:
            raise RuntimeUserError(f"{label} is empty", expected="one example or more", found=f"shape {array.shape}")
        if math.prod(array.shape[1:]) != math.prod(view.shape[1:]):
            raise RuntimeUserError(
                f"{label} does not fit the model",
                expected=f"examples of shape {view.shape[1:]}",
                found=f"examples of shape {array.shape[1:]}",
            )
        # Contiguous, since `take` would otherwise copy the whole array for every batch.
        array = np.require(array.reshape(len(array), *view.shape[1:]), requirements=["C", "A"])
        result[name] = converted(array, view.dtype, label)
        if name in classes and view.dtype.kind != "f":  # the step checks no such indices, but those from floats
            check_range(result[name], 0, classes[name] - 1, "is out of range", label)
    lengths = {name: len(array) for name, array in result.items()}
    if len(set(lengths.values())) > 1:
        raise RuntimeUserError(f"the arrays of the {part} data differ in length", found=str(lengths))
    return result


def converted(array: np.ndarray, dtype: np.dtype, label: str) -> np.ndarray:
    """The array in a dtype of the same kind. Integers never become floats: their scale is compiled into the step."""
    if array.dtype == dtype:
        return array
    kinds = {"u": "integer", "i": "integer", "f": "float"}
    same_kind = kinds.get(array.dtype.kind, "other") == kinds.get(dtype.kind)
    result = array.astype(dtype) if same_kind else array
    if same_kind and dtype.kind == "f" and np.isinf(result).any() and np.isfinite(array).all():
        raise RuntimeUserError(f"{label} has values beyond {dtype.name}", found=f"{np.abs(array).max():g}")
    if not same_kind or (dtype.kind != "f" and not np.array_equal(result, array)):
        raise RuntimeUserError(f"{label} has the wrong type", expected=dtype.name, found=array.dtype.name)
    return result


def epoch_order(examples: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order of the examples in an epoch: it depends on the arguments only, so a resumed run has the same."""
    return generator(seed, epoch, SHUFFLE_STREAM).permutation(examples) if shuffle else np.arange(examples)


@contextmanager
def rows_named(part: str, split: Split | None) -> Iterator[None]:
    """Makes an index outside its table name the row of the file, even if rows were drawn; `part` names the data."""
    try:
        yield
    except IndexOutside as outside:
        if split is not None:
            outside.of_part(part, split.place)
        raise


# The loop over batches ------------------------------------------------------------------------------------------------


def batches(program: BoundGraphs, graph: str, arrays: Arrays, order: np.ndarray, size: int) -> Batches:
    """Runs a graph over the examples in an order, `size` at a time; the last batch may be smaller.

    Yields the number of examples and the results of each run.
    """
    whole = len(order) - len(order) % size
    for first, last, count in ((0, whole, size), (whole, len(order), len(order) - whole)):
        if first == last:
            continue
        run, inputs, outputs = program.bind(graph, count)
        gathers = [(arrays[name].take, view) for name, view in examples_of(inputs).items()]
        place = inputs.get(FIRST_EXAMPLE)
        for start in range(first, last, count):
            indices = order[start : start + count]
            if place is not None:
                place[...] = start
            for take, view in gathers:
                take(indices, 0, view, "clip")  # "clip": the default would copy the view to be able to undo
            try:
                run()
            except IndexOutside as outside:
                outside.of_step(graph, indices, start // size + 1, -(-len(order) // size))
                raise
            yield count, outputs


def interruptible(runs: Iterable[RunType], received: Sequence[int]) -> Iterator[RunType]:
    """The same runs; after one of them Interrupted is raised if a signal has come."""
    for run in runs:
        yield run
        if received:
            raise Interrupted(received[0])


def means(
    runs: Iterable[tuple[int, Arrays]], program: BoundGraphs, metrics: Sequence[str], totals: Mapping[str, str]
) -> dict[str, Any]:
    """Loss and metrics over all batches, in f64: means of batches, weighted by their examples, or results of totals.

    `totals`: results of a batch by name, and how each combines over batches. Numbers, or nested lists.
    """
    names = averaged(metrics, totals)
    sums, examples = [0.0] * len(names), 0
    combined: Arrays = {}
    for count, outputs in runs:
        examples += count
        for index, name in enumerate(names):
            sums[index] += count * outputs[name].item()
        for name, how in totals.items():
            if name in combined:
                COMBINE[how](combined[name], outputs[name], out=combined[name])
            else:
                combined[name] = outputs[name].astype(np.float64)
    found = {name: total / examples for name, total in zip(names, sums, strict=True)}
    return reported(program, metrics, found, combined)


def averaged(metrics: Sequence[str], totals: Mapping[str, str]) -> tuple[str, ...]:
    """The loss, and the metrics that are means. A loss that follows from totals has a value for each batch, too."""
    return ("loss", *(name for name in metrics if not any(each.startswith(f"{name}.") for each in totals)))


def reported(
    program: BoundGraphs, metrics: Sequence[str], found: Mapping[str, float], totals: Arrays
) -> dict[str, Any]:
    """Loss and metrics in the order of the program: what follows from totals over all batches, and means."""
    results = {**found, **(program.follow(totals) if totals else {})}
    return {name: results[name] for name in ("loss", *metrics)}


class HostRunner:
    """A Runner on the CPU."""

    def __init__(self, program: LoadedProgram, graph: str, arrays: Arrays):
        self.program, self.graph, self.arrays = program, graph, arrays
        self.examples = len(next(iter(arrays.values())))

    def batches(self, order: np.ndarray, size: int, received: Sequence[int] = ()) -> Batches:
        return interruptible(batches(self.program, self.graph, self.arrays, order, size), received)

    def means(
        self, order: np.ndarray, size: int, received: Sequence[int] = (), watch: Watch | None = None
    ) -> dict[str, Any]:
        runs, manifest = self.batches(order, size, received), self.program.manifest
        runs = runs if watch is None else watched(runs, watch)
        return means(runs, self.program, manifest.metrics, manifest.totals)


def watched(runs: Batches, watch: Watch) -> Batches:
    """The same runs; shows progress now and then, and raises NotFinite at the first loss that is not finite.

    With a guard also at the first variable; the guard then has the variables as they were before that step.
    """
    is_finite, clock, guard, note = math.isfinite, perf_counter, watch.guard, watch.trend.add
    due = clock() + watch.interval
    if guard is not None:
        guard.keep()
    for step, (count, outputs) in enumerate(runs, 1):
        loss = outputs["loss"].item()
        if not is_finite(loss):
            raise NotFinite(step, loss, guard.bad() if guard else ())
        note(loss)
        if guard is not None:
            if bad := guard.bad():
                raise NotFinite(step, loss, bad)
            guard.keep()
        if clock() >= due:
            watch.show(step)
            due = clock() + watch.interval
        yield count, outputs
