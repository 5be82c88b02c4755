"""Threads: how many to use, the pool that generated code shares, and how many BLAS uses inside a product."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def blas_libraries() -> list:
    """The BLAS libraries that NumPy has loaded."""
    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


@cache
def thread_count() -> int:
    """As many as BLAS was going to use, which the user may limit (OPENBLAS_NUM_THREADS …), else as there are cores."""
    counts = [library.num_threads for library in blas_libraries()]
    return max(counts) if counts else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def set_blas_threads(count: int) -> None:
    for library in blas_libraries():
        library.set_num_threads(count)


@cache
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix="nnc")
