"""NumPy programs run in this process, in main memory."""

from __future__ import annotations

from compiler.targets.running import Runtime, late
from runtime.allowed import CPU_PROGRAMS
from runtime.cpu import free_memory
from runtime.program import LoadedProgram

RUNTIME = Runtime(
    start=lambda options: None,
    load=lambda executable, manifest, options: LoadedProgram(executable, manifest),
    measure=late("runtime.cpu.profiler", "measure"),
    measure_ceilings=late("runtime.cpu.profiler", "measure_ceilings"),
    free_bytes=free_memory.free,
    used_bytes=free_memory.resident,
    allowed=CPU_PROGRAMS,
    device="this machine",
)
