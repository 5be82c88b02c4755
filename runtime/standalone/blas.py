"""BLAS works in the thread that calls it, since the code below divides its own work. This must be set before BLAS is
loaded, together with NumPy."""

from __future__ import annotations

import os

LIMITS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
MOST_THREADS = 64  # of the OpenBLAS that comes with NumPy


def take_threads() -> int:
    """The number of threads that BLAS would use: as in the environment, at most one for each core. BLAS gets one."""
    given = [int(limit) for limit in map(os.environ.get, LIMITS) if limit and limit.isdecimal()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.update(dict.fromkeys(LIMITS, "1"))
    return min(next(filter(None, given), cores), cores, MOST_THREADS)


THREADS = take_threads()


def thread_count() -> int:
    return THREADS
