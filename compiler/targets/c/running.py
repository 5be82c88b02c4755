"""Programs in C run in this process, in main memory. A compiler is looked for when a program is loaded."""

from __future__ import annotations

from compiler.targets.running import Options, Runtime, late
from runtime.allowed import NATIVE_PROGRAMS
from runtime.cpu import free_memory
from runtime.program import Executable, LoadedProgram, Manifest


def start(options: Options) -> None:
    """Raises RuntimeUserError if there is no C compiler, no place for libraries, or a wrong number of threads."""
    from runtime.native import library, threads

    threads.choose(options.get("threads") or "")
    library.find_compiler()


def load(executable: Executable, manifest: Manifest, options: Options) -> LoadedProgram:
    from runtime.native.program import NativeProgram

    return NativeProgram(executable, manifest)


RUNTIME = Runtime(
    start,
    load,
    measure=late("runtime.native.profiler", "measure"),
    measure_ceilings=late("runtime.native.profiler", "measure_ceilings"),
    free_bytes=free_memory.free,
    used_bytes=free_memory.resident,
    allowed=NATIVE_PROGRAMS,
    device="this machine",
    options=("threads",),
    contains_machine_code=True,
)
