"""Where a program runs: the device that the flags ask for, its memory, and the program in it.

What belongs to the GPU is imported in functions: it needs CuPy.
"""

from __future__ import annotations

import argparse

from compiler.cli.cache import Build
from compiler.cli.memory_limit import Memory, main_memory, read_size
from runtime.errors import RuntimeUserError
from runtime.program import Program


def choose_device(flags: argparse.Namespace) -> None:
    """Sets the target that the flags ask for; raises RuntimeUserError if there is no GPU to run on."""
    if flags.gpu:
        from runtime.gpu import cuda

        cuda.check()
        cuda.use_tf32(flags.tf32)
        flags.target = "cupy"
        return
    for name, wanted in (("--no-graph", flags.no_graph), ("--tf32", flags.tf32)):
        if wanted:
            raise RuntimeUserError(f"{name} needs --gpu", expected=f"--gpu {name}", found=f"{name} without --gpu")


def memory_of(flags: argparse.Namespace) -> Memory:
    """The memory that a program may use on its device."""
    if not flags.gpu:
        return main_memory(flags.memory_limit)
    if flags.memory_limit:
        return Memory(read_size(flags.memory_limit), f"--memory-limit {flags.memory_limit} allows")
    from runtime.gpu import cuda

    return Memory(cuda.free_bytes(), "this GPU has", " (free now)")


def program_of(build: Build, flags: argparse.Namespace) -> Program:
    """The program, loaded into the memory of its device."""
    if not flags.gpu:
        return Program(build.executable, build.manifest)
    from runtime.gpu.device_program import DeviceProgram

    return DeviceProgram(build.executable, build.manifest, graphs=not flags.no_graph)
