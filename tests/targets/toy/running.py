"""Programs of the toy target run in this process."""

from __future__ import annotations

from compiler.targets.running import Runtime, late
from runtime.allowed import DTYPES, AllowList
from runtime.cpu import free_memory
from runtime.program import LoadedProgram

ALLOWED = AllowList(
    functions={"runtime.cpu.kernels": {"view"}},
    packages={"runtime.cpu": {"kernels"}},
    objects={"runtime.cpu.profiler": {"Clock"}},
    device_kernels={"tests.targets.toy.interpreted": {"Interpreted"}},
    members={
        "np": {*DTYPES, "broadcast_to", "copyto", "inf", "nan"},
        "kernels": {"steps", "together"},
        "clock": {"start"},
    },
)


class ToyProgram(LoadedProgram):
    allowed = ALLOWED


RUNTIME = Runtime(
    start=lambda options: None,
    load=lambda executable, manifest, options: ToyProgram(executable, manifest),
    measure=late("runtime.cpu.profiler", "measure"),
    measure_ceilings=late("runtime.cpu.profiler", "measure_ceilings"),
    free_bytes=free_memory.free,
    used_bytes=free_memory.resident,
    allowed=ALLOWED,
    device="this machine",
    checks_numerics=False,
)
