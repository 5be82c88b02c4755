"""Threads: their number, and functions that run on them at the same time.

Generated code divides its own work, products included, and limits BLAS to one thread: idle threads of BLAS wait in busy
loops and would take the cores from everything between two products.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

BLAS_TRAITS = ("internal_api", "version", "architecture")
LANES = 8  # threads that a region has scratch space for


@cache
def thread_count() -> int:
    """The threads that BLAS would use, which the user may limit (OPENBLAS_NUM_THREADS …), else the number of cores.

    After the first call, BLAS works in the thread that calls it.
    """
    most = max((library.num_threads for library in blas_libraries()), default=os.cpu_count() or 1)
    for library in blas_libraries():
        library.set_num_threads(1)
    return most


def blas_in_use() -> str:
    """The library for products, its version and its variant for this processor: `openblas 0.3.30 SkylakeX`."""
    found = [library.info() for library in blas_libraries()]
    return ", ".join(" ".join(str(each[k]) for k in BLAS_TRAITS if each.get(k)) for each in found)


@cache
def blas_libraries() -> list[Any]:
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


Task = tuple[Callable[[], object], "SimpleQueue[BaseException | None]"]  # a function, and the queue for its result
inside = threading.local()  # `inside.group` is set in a thread that works for a group; groups are not nested


@cache
def tasks() -> SimpleQueue[Task]:
    """The work for the other threads, which it starts. A queue wakes a thread several times as fast as an executor."""
    queue: SimpleQueue[Task] = SimpleQueue()
    for i in range(thread_count() - 1):
        threading.Thread(target=work, args=(queue,), name=f"nnc-{i + 1}", daemon=True).start()
    return queue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=tasks.cache_clear)  # threads are not forked: the child starts new ones


@np.errstate(all="ignore")  # as in the training loop; NumPy has this setting per thread
def work(queue: SimpleQueue[Task]) -> None:
    inside.group = True
    while True:
        function, done = queue.get()
        try:
            function()
        except BaseException as error:  # raised by the caller
            done.put(error)
        else:
            done.put(None)


def together(*functions: Callable[[], object]) -> None:
    """Calls functions at the same time, on as many threads as there are. NumPy releases the GIL while it computes."""
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
    """The views of each tile of a region, `views(lane, first index)`, for each thread that may work on it."""
    return [[views(lane, i * step) for i in range(number)] for lane in range(min(thread_count(), number, LANES))]


def run_tiles(run: Callable[[Iterable[tuple[Any, ...]]], object], lanes: Lanes) -> None:
    """Runs a region: each thread takes the next tile that no other has, and uses the scratch space of its lane."""
    indices = iter(range(len(lanes[0])))
    together(*(partial(run, tiles_at(lane, indices)) for lane in lanes))


def tiles_at(lane: list[tuple[Any, ...]], indices: Iterator[int]) -> Iterator[tuple[Any, ...]]:
    for i in indices:  # all threads share it
        yield lane[i]


def parts(most: int) -> int:
    """The number of parts to divide a piece of work into, if at most `most` are worth starting a thread."""
    count = thread_count()  # for small products too: BLAS must not start its own threads for them
    return 1 if getattr(inside, "group", False) else max(1, min(count, most))
