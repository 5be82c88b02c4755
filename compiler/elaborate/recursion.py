"""Stack space for recursion: elaboration recurses as deeply as a model's calls and expressions nest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import ParamSpec, TypeVar, cast

RECURSION_LIMIT = 20_000  # Python's; elaboration limits the depth of calls and expressions well below it
STACK_SLOTS = 1 << 16  # of eight bytes; never touched, so they take addresses but no memory

P = ParamSpec("P")
R = TypeVar("R")


def recursive(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function recurse deeply, and cheaply.

    CPython keeps the frames of Python functions in chunks of 16 KB, and returns a chunk to the operating system when
    its last frame has returned. Repeated calls across the border of a chunk map and unmap memory each time, which took
    half of the elaboration time of a large model. A chunk is as large as its first frame needs, rounded up to a power
    of two: a first frame with half a megabyte of slots leaves as much for the frames after it.
    """

    @wraps(function)
    def with_room(*args: P.args, **kwargs: P.kwargs) -> R:
        sys.setrecursionlimit(max(RECURSION_LIMIT, sys.getrecursionlimit()))
        return function(*args, **kwargs)

    code = cast(FunctionType, with_room).__code__
    cast(FunctionType, with_room).__code__ = code.replace(co_stacksize=STACK_SLOTS)
    return with_room
