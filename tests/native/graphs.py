"""Small graphs in C for the tests of the runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.native.library import Graph
from runtime.program import aligned_zeros

NUMBERS = 1000
# Adds 1 to every number; then, after the barrier, every part adds up all of them into a place of its own.
ADDING = """
#include "step.h"
static void add(const Step *s) {
    long *numbers = (long *)s->arena, from, to;
    share(s->B, 1, s->part, s->parts, &from, &to);
    for (long i = from; i < to; ++i) numbers[i] += 1;
}
void adding(const Step *s) {
    long *numbers = (long *)s->arena;
    for (int round = 0; round < 3; ++round) {
        add(s);
        barrier(s);
        long sum = 0;
        for (long i = 0; i < s->B; ++i) sum += numbers[i];
        numbers[1000 + s->part] += sum;
        barrier(s);
    }
}
"""


def adding() -> tuple[Any, np.ndarray, np.ndarray]:
    """The graph, its arena, and a view of it: the numbers, then the sums of each part."""
    arena = aligned_zeros(8 * (NUMBERS + 255))
    return Graph(ADDING, "adding", 100), arena, arena.view(np.int64)


def expected_sum(before: int) -> int:
    """What every part adds in a call before which each number was `before`."""
    return NUMBERS * sum(before + round for round in (1, 2, 3))
