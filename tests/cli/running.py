"""The command line in this process, which is quick, or in a separate one, as users run it."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from compiler.cli.run import run
from tests.programs import ROOT


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


def nnc(*arguments: str | Path) -> Result:
    """Runs a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run([str(argument) for argument in arguments], time.perf_counter())
        except SystemExit as leaving:  # --help and --version
            code = int(leaving.code or 0)
        finally:
            gc.enable()
    return Result(code, out.getvalue(), err.getvalue())


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "compiler", *map(str, arguments)]


def process(*arguments: str | Path, folder: Path | None = None, **changes: str) -> Result:
    """Runs a command in a separate process, in a folder and with changes to the environment."""
    done = subprocess.run(
        command(*arguments), cwd=folder, env=environment(**changes), capture_output=True, text=True, timeout=120
    )
    return Result(done.returncode, done.stdout, done.stderr)
