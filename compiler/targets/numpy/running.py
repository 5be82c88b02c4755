"""NumPy programs run in this process, in main memory."""

from __future__ import annotations

from compiler.targets.running import Options, Runtime, late
from runtime.cpu import free_memory
from runtime.program import Executable, Manifest, Program


def load(executable: Executable, manifest: Manifest, options: Options) -> Program:
    return Program(executable, manifest)


RUNTIME = Runtime(
    start=lambda options: None,
    load=load,
    measure=late("runtime.cpu.profiler", "measure"),
    measure_ceilings=late("runtime.cpu.profiler", "measure_ceilings"),
    free_bytes=free_memory.free,
    used_bytes=free_memory.resident,
    device="this machine",
)
