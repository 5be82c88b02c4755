"""Where a program runs: the target that the flags choose, its options, its memory, and the program loaded into it."""

from __future__ import annotations

import argparse
from typing import Any

from compiler.cli.cache import Build
from compiler.cli.flags import TARGET_OPTIONS
from compiler.cli.memory_limit import Memory, memory_of_target
from compiler.targets.running import find_runtime
from runtime.errors import RuntimeUserError
from runtime.program import LoadedProgram


def choose_device(flags: argparse.Namespace) -> None:
    """Gets the target ready to run; raises RuntimeUserError if it cannot run here, or has no such option."""
    runtime, options = find_runtime(flags.target), options_of(flags)
    for name, needed in TARGET_OPTIONS.items():
        if options[name] and name not in runtime.options:
            flag = f"--{name.replace('_', '-')}"
            raise RuntimeUserError(
                f"{flag} needs {needed}", expected=f"{needed} {flag}", found=f"{flag} without {needed}"
            )
    runtime.start(options)


def options_of(flags: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(flags, name, None) for name in TARGET_OPTIONS}


def checks_numerics(flags: argparse.Namespace) -> bool:
    """Whether a command checks all variables after every step."""
    return getattr(flags, "check_numerics", False)


def memory_of(flags: argparse.Namespace) -> Memory:
    """The memory that a program may use on its device."""
    return memory_of_target(flags.target, flags.memory_limit)


def program_of(build: Build, flags: argparse.Namespace) -> LoadedProgram:
    """The program, loaded into the memory of its device."""
    return find_runtime(build.executable.target).load(build.executable, build.manifest, options_of(flags))
