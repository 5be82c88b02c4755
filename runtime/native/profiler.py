"""Time by region of programs in C, as `runtime/cpu/profiler.py` measures that of NumPy programs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np

from runtime.cpu.profiler import Ceilings, Measured, best, ceilings, quicker_half, step_seconds, typical
from runtime.native.library import Graph
from runtime.native.program import NativeProgram
from runtime.native.threads import threads
from runtime.program import Arrays, aligned_zeros

COPIED = 64 << 20  # bytes: more than fits any cache
CEILING_SECONDS = 0.5  # to measure each
MATRIX_SIZE = 1024  # rows and columns of the matrices of the large product
HALF = 128 << 20  # bytes of the arena before the place that is copied to
MACHINE = r"""
#include "regions.h"
#include "products.h"
static void keep(
    const Step *s, const float *tile, long stride, long batch, long row, long rows, long column, long columns) {
    float *c = (float *)s->arena + 2 * 1024 * 1024;
    for (long i = 0; i < rows; ++i) memcpy(c + (row + i) * 1024 + column, tile + i * stride, columns * sizeof(float));
}
void large_product(const Step *s) {
    const float *a = (const float *)s->arena, *b = a + 1024 * 1024;
    const Product p = {1, 1024, 1024, 1024, a, 0, 1024, 1, b, 0, 1024, 1};
    multiply(s, &p, keep);
}
void large_copy(const Step *s) { copy(s, 128L << 20, 0, 64L << 20); }
void nothing(const Step *s) {}
"""


def measure_ceilings() -> Ceilings:
    """The speeds of a large copy and of a large product of the templates, on all threads."""
    arena = aligned_zeros(HALF + COPIED)
    arena.view(np.float32)[...] = 1.0
    run = {name: partial(Graph(MACHINE, name, 1 << 20), arena, 1) for name in ("large_copy", "large_product")}
    count = threads()
    machine = f"this machine at best, {count} thread{'s' if count > 1 else ''}"
    return ceilings(machine, COPIED, MATRIX_SIZE, steady(run["large_copy"]), steady(run["large_product"]))


def steady(function: Callable[[], object]) -> float:
    """Seconds of the fastest call in a time long enough for the processor to reach its speed."""
    found, end = best(function), perf_counter() + CEILING_SECONDS
    while perf_counter() < end:
        found = min(found, best(function))
    return found


def measure(plain: NativeProgram, timed: NativeProgram, graph: str, arrays: Arrays, parts: int, steps: int) -> Measured:
    """Runs steps of both programs, which differ only in the clock, in turns. `arrays` fit the graph's inputs."""
    running = [step_seconds(program, graph, arrays, steps + 1) for program in (plain, timed)]
    for each in running:
        next(each)  # the first step fills the cache
    library = timed.functions[graph].__globals__[graph].loaded
    spent, calls = ((ctypes.c_longlong * parts).in_dll(library, name) for name in ("spent", "calls"))
    plain_steps: list[float] = []
    timed_steps: list[tuple[float, list[int], list[int]]] = []
    for _ in range(steps):
        plain_steps.append(next(running[0]))
        ctypes.memset(spent, 0, ctypes.sizeof(spent))
        ctypes.memset(calls, 0, ctypes.sizeof(calls))
        timed_steps.append((next(running[1]), list(spent), list(calls)))
    quicker = quicker_half(timed_steps, key=lambda step: step[0])
    seconds = np.mean([nanoseconds for _, nanoseconds, _ in quicker], axis=0) / 1e9
    return Measured(seconds.tolist(), np.mean([c for *_, c in quicker], axis=0).tolist(), typical(plain_steps), steps)
