"""CuPy programs run on an NVIDIA GPU. CuPy is imported late, when a program is loaded or the GPU is queried."""

from __future__ import annotations

from compiler.targets.running import Options, Runtime, late
from runtime.allowed import GPU_PROGRAMS
from runtime.program import Executable, LoadedProgram, Manifest


def start(options: Options) -> None:
    """Raises RuntimeUserError if CuPy or a GPU is missing."""
    from runtime.gpu import cuda

    cuda.check()
    cuda.use_tf32(options.get("tf32", False))


def load(executable: Executable, manifest: Manifest, options: Options) -> LoadedProgram:
    from runtime.gpu.device_program import DeviceProgram

    return DeviceProgram(executable, manifest, graphs=not options.get("no_graph", False))


RUNTIME = Runtime(
    start,
    load,
    measure=late("runtime.gpu.device_profiler", "measure"),
    measure_ceilings=late("runtime.gpu.device_profiler", "measure_ceilings"),
    free_bytes=late("runtime.gpu.cuda", "free_bytes"),
    used_bytes=lambda: 0,
    allowed=GPU_PROGRAMS,
    device="this GPU",
    in_main_memory=False,
    options=("tf32", "no_graph"),
    checks_numerics=False,
)
