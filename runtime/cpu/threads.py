"""Threads: how many there are, and running functions on them at the same time.

Generated code divides its own work, products included, and keeps BLAS to one thread: idle threads of BLAS wait by
spinning, and would take the cores from everything between two products.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import count
from queue import SimpleQueue
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

BLAS_TRAITS = ("internal_api", "version", "architecture")
LANES = 8  # as many threads as generated code has scratch space for in a region


@cache
def thread_count() -> int:
    """As many as BLAS was going to use, which the user may limit (OPENBLAS_NUM_THREADS …), else as there are cores.

    From the first call on, BLAS works in the thread that calls it.
    """
    most = max((library.num_threads for library in blas_libraries()), default=os.cpu_count() or 1)
    for library in blas_libraries():
        library.set_num_threads(1)
    return most


def blas_in_use() -> str:
    """`openblas 0.3.30 SkylakeX`: what computes products, with the version and the kernels chosen for the processor."""
    found = [library.info() for library in blas_libraries()]
    return ", ".join(" ".join(str(each[k]) for k in BLAS_TRAITS if each.get(k)) for each in found)


@cache
def blas_libraries() -> list[Any]:
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


Task = tuple[Callable[[], object], "SimpleQueue[BaseException | None]"]  # a function, and where its end is reported
inside = threading.local()  # `inside.group` is set in a thread that works for a group: groups do not nest


@cache
def tasks() -> SimpleQueue[Task]:
    """What the other threads take their work from. A queue wakes a thread several times as fast as an executor."""
    queue: SimpleQueue[Task] = SimpleQueue()
    for i in range(thread_count() - 1):
        threading.Thread(target=work, args=(queue,), name=f"nnc-{i + 1}", daemon=True).start()
    return queue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=tasks.cache_clear)  # threads stay behind: a forked process starts its own


@np.errstate(all="ignore")  # as in whoever trains, but NumPy keeps this apart for every thread
def work(queue: SimpleQueue[Task]) -> None:
    inside.group = True
    while True:
        function, done = queue.get()
        try:
            function()
        except BaseException as error:  # the caller raises it
            done.put(error)
        else:
            done.put(None)


def together(*functions: Callable[[], object]) -> None:
    """Calls functions at the same time, as far as there are threads. NumPy lets other threads run while it computes."""
    if thread_count() == 1 or getattr(inside, "group", False):
        for function in functions:
            function()
        return
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for function in functions[1:]:
        tasks().put((function, done))
    inside.group = True
    try:
        functions[0]()
    finally:
        inside.group = False
        errors = [done.get() for _ in functions[1:]]
    for error in filter(None, errors):
        raise error


Lanes = list[list[tuple[Any, ...]]]


def tiles(views: Callable[[int, int], tuple[Any, ...]], number: int, step: int) -> Lanes:
    """The views of each tile of a region, `views(lane, first index)`, for each thread that may come to work on it."""
    return [[views(lane, i * step) for i in range(number)] for lane in range(min(thread_count(), number, LANES))]


def spread(run: Callable[[Iterable[tuple[Any, ...]]], object], lanes: Lanes) -> None:
    """Runs a region: every thread takes the next tile that nobody has, with the scratch space of its lane."""
    following = count()
    together(*(partial(run, untaken(lane, following)) for lane in lanes))


def untaken(lane: list[tuple[Any, ...]], following: Iterator[int]) -> Iterator[tuple[Any, ...]]:
    while (i := next(following)) < len(lane):
        yield lane[i]


def parts(most: int) -> int:
    """Into how many parts a piece of work is best divided, if `most` are worth their start."""
    count = thread_count()  # also for small products: BLAS shall not start its own threads for them
    return 1 if getattr(inside, "group", False) else max(1, min(count, most))
