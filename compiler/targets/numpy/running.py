"""NumPy programs run in this process, in main memory."""

from __future__ import annotations

from compiler.targets.running import Options, Runtime, late
from runtime.allowed import CPU_PROGRAMS
from runtime.cpu import free_memory
from runtime.program import Executable, LoadedProgram, Manifest


def load(executable: Executable, manifest: Manifest, options: Options) -> LoadedProgram:
    return LoadedProgram(executable, manifest)


RUNTIME = Runtime(
    start=lambda options: None,
    load=load,
    measure=late("runtime.cpu.profiler", "measure"),
    measure_ceilings=late("runtime.cpu.profiler", "measure_ceilings"),
    free_bytes=free_memory.free,
    used_bytes=free_memory.resident,
    allowed=CPU_PROGRAMS,
    device="this machine",
)
