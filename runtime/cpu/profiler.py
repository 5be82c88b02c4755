"""Time by part of a step: the clock that generated source reads, the limits of the machine, and measured steps.

A part is a call, of a region, a kernel or a function of NumPy, or a statement in a loop. Source with a clock calls
`tick(i)` after part i; the time of a tick is measured before and subtracted. The slower half of all steps is ignored,
since other work on the machine disturbed them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from time import perf_counter, perf_counter_ns
from typing import TypeVar

import numpy as np

from runtime.cpu import kernels
from runtime.cpu.threads import thread_count, together
from runtime.feeding import batches
from runtime.program import Arrays, LoadedProgram, examples_of

COPIED = 16 * 1024 * 1024  # f32 numbers, 64 MB: more than fits any cache
MATRIX_SIZE = 1024  # rows and columns of the matrices of the large product
TRIES = 7
LEVELS = 256  # of random integers that are not classes
TICKS = 10_000  # to measure the time of one

Tick = Callable[[int], None]
Lap = Sequence[tuple[int, float]]  # parts in running order, with their nanoseconds
Step = TypeVar("Step")


class Clock:
    """Measures the parts of steps: a lap for each start."""

    def __init__(self) -> None:
        self.laps: list[list[tuple[int, int]]] = []

    def start(self) -> Tick:
        """Starts the clock, for one thread: `tick(i)` gives part i the time since the last tick."""
        lap: list[tuple[int, int]] = []
        self.laps.append(lap)
        last = perf_counter_ns()

        def tick(part: int) -> None:
            nonlocal last
            now = perf_counter_ns()
            lap.append((part, now - last))
            last = perf_counter_ns()

        return tick


@dataclass(frozen=True)
class Ceilings:
    """The highest speeds of a machine."""

    machine: str  # its description
    copied: int  # bytes of the large copy
    matrix_size: int  # rows and columns of the matrices of the large product
    gigabytes: float  # read and written per second by the copy
    gigaflops: float  # operations per second in the product of f32 matrices


@dataclass(frozen=True)
class Measured:
    """Seconds and calls of each part in a step, and seconds of a whole step of the same program without a clock."""

    seconds: list[float]
    calls: list[float]
    step: float
    steps: int
    launched: float | None = None  # of the same step on a GPU without a CUDA graph, launched from Python


def measure_ceilings() -> Ceilings:
    count = thread_count()
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    bounds = list(pairwise(COPIED * i // count for i in range(count + 1)))
    copies = [partial(np.copyto, target[i:j], source[i:j]) for i, j in bounds]
    seconds = best(lambda: together(*copies))
    a = np.random.default_rng(0).random((MATRIX_SIZE, MATRIX_SIZE), np.float32)
    product = np.empty_like(a)
    product_seconds = best(lambda: kernels.matmul(a, a, out=product))
    machine = f"this machine at best, {count} thread{'s' if count > 1 else ''}"
    return ceilings(machine, source.nbytes, MATRIX_SIZE, seconds, product_seconds)


def ceilings(machine: str, copied: int, size: int, copy_seconds: float, product_seconds: float) -> Ceilings:
    return Ceilings(machine, copied, size, 2 * copied / copy_seconds / 1e9, 2 * size**3 / product_seconds / 1e9)


def best(function: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    return min(seconds_of(function) for _ in range(TRIES))


def seconds_of(function: Callable[[], object]) -> float:
    begun = perf_counter()
    function()
    return perf_counter() - begun


def tick_nanoseconds() -> float:
    """The time that a tick measures for a part that takes none."""
    clock = Clock()
    tick = clock.start()
    for _ in range(TICKS):
        tick(0)
    return float(np.median([nanoseconds for _, nanoseconds in clock.laps[0]]))


@np.errstate(all="ignore")
def measure(plain: LoadedProgram, timed: LoadedProgram, graph: str, arrays: Arrays, parts: int, steps: int) -> Measured:
    """Runs steps of both programs, which differ only in the clock, in turns. `arrays` fit the graph's inputs."""
    running = [step_seconds(program, graph, arrays, steps + 1) for program in (plain, timed)]
    for each in running:
        next(each)  # the first step fills the cache
    clock: Clock = timed.bind(graph, timed.batch)[0].__globals__["clock"]
    plain_steps: list[float] = []
    timed_steps: list[tuple[float, Sequence[Lap]]] = []
    for _ in range(steps):
        plain_steps.append(next(running[0]))
        clock.laps.clear()
        timed_steps.append((next(running[1]), list(clock.laps)))
    quicker = [laps for _, laps in quicker_half(timed_steps, key=lambda step: step[0])]
    return Measured(*means(quicker, parts, tick_nanoseconds()), typical(plain_steps), steps)


def step_seconds(program: LoadedProgram, graph: str, arrays: Arrays, steps: int) -> Iterator[float]:
    """Runs a step of a graph for each item, fed as in training, and yields its seconds."""
    examples = min(map(len, arrays.values()), default=1)
    order = np.arange(steps * program.batch) % examples
    running = batches(program, graph, arrays, order, program.batch)
    for _ in range(steps):
        yield seconds_of(lambda: next(running))


def quicker_half(steps: Sequence[Step], key: Callable[[Step], float]) -> list[Step]:
    return sorted(steps, key=key)[: -(-len(steps) // 2)]


def typical(seconds: Sequence[float]) -> float:
    return float(np.mean(quicker_half(seconds, key=float)))


def means(steps: Sequence[Sequence[Lap]], parts: int, overhead: float) -> tuple[list[float], list[float]]:
    """Seconds and calls of each part in a step, without `overhead`, the nanoseconds of a tick."""
    nanoseconds, calls = [0.0] * parts, [0] * parts
    for part, spent in chain.from_iterable(chain.from_iterable(steps)):
        nanoseconds[part] += max(spent - overhead, 0)
        calls[part] += 1
    return [each / 1e9 / len(steps) for each in nanoseconds], [each / len(steps) for each in calls]


def random_arrays(program: LoadedProgram, graph: str) -> Arrays:
    """A batch for the inputs of a graph: floats around zero, integers in the range that the program accepts."""
    generator = np.random.default_rng(0)
    arrays: Arrays = {}
    for name, view in examples_of(program.inputs(graph, program.batch)).items():
        if view.dtype.kind == "f":
            arrays[name] = generator.normal(size=view.shape).astype(view.dtype)
        else:
            most = program.manifest.classes.get(name, LEVELS)
            arrays[name] = generator.integers(0, most, view.shape).astype(view.dtype)
    return arrays
