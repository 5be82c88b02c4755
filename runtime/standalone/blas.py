"""BLAS works in the thread that calls it, as the code below divides its own work. It must hear of that before it is
loaded, which is with NumPy."""

from __future__ import annotations

import os

LIMITS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
MOST_THREADS = 64  # of OpenBLAS as it comes with NumPy


def take_threads() -> int:
    """As many threads as BLAS would use: what the environment says, at most one for each core. Leaves one to BLAS."""
    given = [int(limit) for limit in map(os.environ.get, LIMITS) if limit and limit.isdecimal()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.update(dict.fromkeys(LIMITS, "1"))
    return min(next(filter(None, given), cores), cores, MOST_THREADS)


THREADS = take_threads()


def thread_count() -> int:
    return THREADS
