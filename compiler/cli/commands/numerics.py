"""The command that runs a step again which gave NaN or Inf: replay."""

from __future__ import annotations

import argparse

from compiler.cli.memory_check import check_main_memory
from compiler.numerics.replay import PROGRAM, replay
from runtime.training.captures import read_dump


def replay_command(flags: argparse.Namespace) -> None:
    capture, recipe = read_dump(flags.file)
    program = flags.file.parent / PROGRAM
    print(replay(capture, recipe, str(program) if program.exists() else PROGRAM, check_main_memory))
