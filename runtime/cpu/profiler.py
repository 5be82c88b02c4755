"""Time by kernel: the clock that generated source reads, what the machine can do at best, and the steps measured.

Source that is to be measured starts a clock and calls `tick(i)` after kernel i; what a tick itself takes is measured
beforehand and taken off. Of all steps the slower half is left out: they were disturbed.
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
from runtime.program import Arrays, LoadedProgram

COPIED = 16 * 1024 * 1024  # f32 numbers, 64 MB: more than fits any cache
SIDE = 1024  # of the matrices of the large product
TRIES = 7
LEVELS = 256  # of random whole numbers that stand for no classes
TICKS = 10_000  # to measure what one takes

Tick = Callable[[int], None]
Lap = Sequence[tuple[int, float]]  # kernels in the order they ran, and their nanoseconds
Step = TypeVar("Step")


class Clock:
    """All that was measured: a lap for each start."""

    def __init__(self) -> None:
        self.laps: list[list[tuple[int, int]]] = []

    def start(self) -> Tick:
        """A clock that runs from now on, for one thread: `tick(i)` gives kernel i the time since the last tick."""
        lap: list[tuple[int, int]] = []
        self.laps.append(lap)
        last = perf_counter_ns()

        def tick(kernel: int) -> None:
            nonlocal last
            now = perf_counter_ns()
            lap.append((kernel, now - last))
            last = perf_counter_ns()

        return tick


@dataclass(frozen=True)
class Ceilings:
    """What a machine does at best."""

    machine: str  # which one, and on what
    copied: int  # bytes of the large copy
    side: int  # of the matrices of the large product
    gigabytes: float  # read and written in a second by the copy
    gigaflops: float  # operations in a second in the product, of f32 matrices


@dataclass(frozen=True)
class Measured:
    """Seconds in a step of each kernel and how often it ran, and of a whole step of the same program without clock."""

    seconds: list[float]
    calls: list[float]
    step: float
    steps: int
    launched: float | None = None  # the same step on a GPU without a CUDA graph, launched from Python


def measure_ceilings() -> Ceilings:
    count = thread_count()
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    bounds = list(pairwise(COPIED * i // count for i in range(count + 1)))
    copies = [partial(np.copyto, target[i:j], source[i:j]) for i, j in bounds]
    seconds = best(lambda: together(*copies))
    a = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    product = np.empty_like(a)
    product_seconds = best(lambda: kernels.matmul(a, a, out=product))
    machine = f"this machine at best, {count} thread{'s' if count > 1 else ''}"
    return ceilings(machine, source.nbytes, SIDE, seconds, product_seconds)


def ceilings(machine: str, copied: int, side: int, copy_seconds: float, product_seconds: float) -> Ceilings:
    return Ceilings(machine, copied, side, 2 * copied / copy_seconds / 1e9, 2 * side**3 / product_seconds / 1e9)


def best(function: Callable[[], object]) -> float:
    """Seconds of the quickest of several calls."""
    return min(seconds_of(function) for _ in range(TRIES))


def seconds_of(function: Callable[[], object]) -> float:
    begun = perf_counter()
    function()
    return perf_counter() - begun


def tick_nanoseconds() -> float:
    """What a tick gives to a kernel that takes no time."""
    clock = Clock()
    tick = clock.start()
    for _ in range(TICKS):
        tick(0)
    return float(np.median([nanoseconds for _, nanoseconds in clock.laps[0]]))


@np.errstate(all="ignore")
def measure(
    plain: LoadedProgram, timed: LoadedProgram, graph: str, arrays: Arrays, kernels: int, steps: int
) -> Measured:
    """Runs steps of both programs, which differ in the clock alone, in turns. `arrays` fit the graph's inputs."""
    running = [step_seconds(program, graph, arrays, steps + 1) for program in (plain, timed)]
    for each in running:
        next(each)  # the first step loads what later ones have in the cache
    clock: Clock = timed.bind(graph, timed.batch)[0].__globals__["clock"]
    plain_steps: list[float] = []
    timed_steps: list[tuple[float, Sequence[Lap]]] = []
    for _ in range(steps):
        plain_steps.append(next(running[0]))
        clock.laps.clear()
        timed_steps.append((next(running[1]), list(clock.laps)))
    kept = [laps for _, laps in quicker_half(timed_steps, key=lambda step: step[0])]
    return Measured(*means(kept, kernels, tick_nanoseconds()), typical(plain_steps), steps)


def step_seconds(program: LoadedProgram, graph: str, arrays: Arrays, steps: int) -> Iterator[float]:
    """Runs a step of a graph each time it is asked, fed like in training, and says how long it took."""
    examples = min(map(len, arrays.values()), default=1)
    order = np.arange(steps * program.batch) % examples
    running = batches(program, graph, arrays, order, program.batch)
    for _ in range(steps):
        yield seconds_of(lambda: next(running))


def quicker_half(steps: Sequence[Step], key: Callable[[Step], float]) -> list[Step]:
    return sorted(steps, key=key)[: -(-len(steps) // 2)]


def typical(seconds: Sequence[float]) -> float:
    return float(np.mean(quicker_half(seconds, key=float)))


def means(steps: Sequence[Sequence[Lap]], kernels: int, own: float) -> tuple[list[float], list[float]]:
    """Seconds and calls of each kernel in a step, less the nanoseconds that a tick itself takes."""
    nanoseconds, calls = [0.0] * kernels, [0] * kernels
    for kernel, spent in chain.from_iterable(chain.from_iterable(steps)):
        nanoseconds[kernel] += max(spent - own, 0)
        calls[kernel] += 1
    return [each / 1e9 / len(steps) for each in nanoseconds], [each / len(steps) for each in calls]


def random_arrays(program: LoadedProgram, graph: str) -> Arrays:
    """A batch for the inputs of a graph: floats around zero, whole numbers of the range that the program takes."""
    generator = np.random.default_rng(0)
    arrays: Arrays = {}
    for name, view in program.inputs(graph, program.batch).items():
        if view.dtype.kind == "f":
            arrays[name] = generator.normal(size=view.shape).astype(view.dtype)
        else:
            most = program.manifest.classes.get(name, LEVELS)
            arrays[name] = generator.integers(0, most, view.shape).astype(view.dtype)
    return arrays
