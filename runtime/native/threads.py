"""The number of threads that run graphs in C."""

from __future__ import annotations

import os

from runtime.errors import RuntimeUserError

VARIABLE = "NNC_THREADS"
MOST = 255  # MOST_THREADS in pool.c
chosen = 0  # by --threads; 0: not chosen


def threads() -> int:
    """What --threads says, else $NNC_THREADS, else the processors that this process may use."""
    return chosen or number_in(os.environ.get(VARIABLE, ""), VARIABLE) or available()


def choose(text: str) -> None:
    """Sets the number of threads to that of a flag; empty text leaves it to the environment.

    Raises RuntimeUserError for anything but a number of threads, in the flag or in the environment.
    """
    global chosen
    chosen = number_in(text, "--threads")
    threads()


def available() -> int:
    """The processors that this process may use."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(known or 1, MOST)


def number_in(text: str, where: str) -> int:
    """The number of threads in a text, or 0 if it is empty; raises RuntimeUserError."""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST):
        raise RuntimeUserError(f"{where} is not a number of threads", expected=f"from 1 to {MOST}", found=text[:20])
    return int(text)
