"""The record of a target for running: how the runtime loads, limits and measures its programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from compiler.targets.registry import HOST, TARGETS
from runtime.allowed import AllowList
from runtime.program import LoadedProgram

Options = Mapping[str, Any]  # command line flags that only some targets support: switches, and texts or None


@dataclass(frozen=True)
class Runtime:
    """How programs of a target are run.

    start(options)                            raises RuntimeUserError if programs cannot run on this machine
    load(executable, manifest, options) -> LoadedProgram
    measure(plain, timed, graph, arrays, kernels, steps) -> Measured    see runtime/cpu/profiler.py
    measure_ceilings() -> Ceilings            the peak bandwidth and speed of the machine
    free_bytes() -> bytes of free memory, or None if the system does not report it
    used_bytes() -> bytes of the same memory that this process already uses
    """

    start: Callable[[Options], None]
    load: Callable[..., LoadedProgram]
    measure: Callable[..., Any]
    measure_ceilings: Callable[[], Any]
    free_bytes: Callable[[], int | None]
    used_bytes: Callable[[], int]
    allowed: AllowList  # the code that its generated source may contain
    device: str  # the owner of the memory in messages, such as "this machine"
    in_main_memory: bool = True  # whether tensors are in the same memory as the data set and the program
    threads: Callable[[], int] = lambda: 1  # that have a workspace each
    bytes_per_character: int = 55  # measured: of source, which becomes code, views of the arena, closures
    options: tuple[str, ...] = ()  # the command line flags it supports
    contains_machine_code: bool = False  # whether programs run text unchecked on the CPU: only from a private cache
    checks_numerics: bool = True  # whether --check-numerics and replay support its programs


def late(module: str, name: str) -> Callable[..., Any]:
    """A function whose module is imported at its first call, since few commands need it or it needs CuPy."""
    return lambda *arguments: getattr(import_module(module), name)(*arguments)


def find_runtime(name: str = HOST) -> Runtime:
    """The runtime of a target; imports neither its code generator nor other targets."""
    return import_module(f"{TARGETS[name]}.running").RUNTIME
