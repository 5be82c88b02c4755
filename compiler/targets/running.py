"""The record of a target for running: how the runtime loads, limits and measures its programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from compiler.targets.registry import HOST, TARGETS
from runtime.allowed import AllowList
from runtime.program import LoadedProgram

Options = Mapping[str, bool]  # flags of the command line that only some targets have


@dataclass(frozen=True)
class Runtime:
    """How programs of a target run.

    start(options)                            raises RuntimeUserError if they cannot run on this machine
    load(executable, manifest, options) -> LoadedProgram
    measure(plain, timed, graph, arrays, kernels, steps) -> Measured    see runtime/cpu/profiler.py
    measure_ceilings() -> Ceilings            what the machine does at best
    free_bytes() -> bytes, or None if the system does not say
    used_bytes() -> bytes of the same memory that the process has already
    """

    start: Callable[[Options], None]
    load: Callable[..., LoadedProgram]
    measure: Callable[..., Any]
    measure_ceilings: Callable[[], Any]
    free_bytes: Callable[[], int | None]
    used_bytes: Callable[[], int]
    allowed: AllowList  # what its generated source may hold
    device: str  # whose memory it is, as in "this machine"
    in_main_memory: bool = True  # whether tensors share their memory with the data set and the program
    options: tuple[str, ...] = ()  # the flags that it has
    checks_numerics: bool = True  # whether --check-numerics and replay can look into its programs


def late(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when the function is called: few commands need it, or it needs CuPy."""
    return lambda *arguments: getattr(import_module(module), name)(*arguments)


def find_runtime(name: str = HOST) -> Runtime:
    """The runtime of a target; neither the compiler's part of it nor other targets are imported."""
    return import_module(f"{TARGETS[name]}.running").RUNTIME
