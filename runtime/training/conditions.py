"""Conditions that the bits of a run depend on besides its program and data. They are written to logs and dumps."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.cpu.threads import blas_in_use, thread_count
from runtime.errors import quoted
from runtime.program import LoadedProgram

TARGET = "target"


def conditions(program: LoadedProgram | None = None) -> dict[str, Any]:
    """The conditions of the machine and its libraries by name, and those of a program."""
    here = {"numpy": np.__version__, "blas": blas_in_use(), "machine": platform.machine(), "threads": thread_count()}
    return here | (program.conditions() if program else {})


def targets_differ(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether both name a target, and not the same: then results are equal up to rounding, whatever else changed."""
    return all(isinstance(each.get(TARGET), str) for each in (then, now)) and then[TARGET] != now[TARGET]


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`threads 2 then, 8 now` for each condition in both that has changed; `then` may come from an untrusted file.

    Only the target if that has changed: its threads and passes are others.
    """
    names = [TARGET] if targets_differ(then, now) else now
    pairs = [(name, then[name], now[name]) for name in names if name in then and is_condition(then[name])]
    return [f"{name} {show(old, new)} then, {show(new, old)} now" for name, old, new in pairs if old != new]


def is_condition(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def show(value: object, other: object) -> str:
    """A condition as text; for lists only the items that the other does not have."""
    if isinstance(value, list) and isinstance(other, list):
        only = dict.fromkeys(item for item in value if item not in other)
        return quoted(", ".join(only) or "less")[1:-1]
    return quoted(str(value))[1:-1]
