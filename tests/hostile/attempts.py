"""What a kind of untrusted file is, and how a command is tried in this process."""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compiler.cli import run as cli
from compiler.cli.flags import read_flags
from runtime.errors import RuntimeUserError

REFUSED = re.compile(r"^(?:.+:\d+:\d+: )?error: \S", re.MULTILINE)
WARNING = re.compile(r"^\S+:\d+: \w*Warning: ", re.MULTILINE)
LONGEST_MESSAGE = 200_000  # characters


class Wrong(Exception):
    """A command with a forbidden outcome."""


@dataclass(frozen=True)
class Kind:
    """`make` fills a folder and returns the files to damage; `attempt` reads one of them."""

    make: Callable[[Path], list[Path]]
    attempt: Callable[[Path, random.Random], bool]
    words: str = ""  # a vocabulary for texts
    reseal: Callable[[bytes], bytes] = bytes  # makes checksums match again, for half of the damage


def nnc(*arguments: str | Path) -> tuple[int, str]:
    """Runs a command in this process; its exit code and output. Raises Wrong for an outcome that users must not see."""
    out, err = io.StringIO(), io.StringIO()
    flags = argparse.Namespace(**copy.deepcopy(vars(flags_of(*map(str, arguments)))))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.run_command(flags, time.perf_counter())
        except RuntimeUserError as error:
            print(error, file=sys.stderr)
            code = cli.USER_ERROR
    judge(code, err.getvalue())
    return code, out.getvalue()


def judge(code: int, errors: str) -> None:
    """Raises Wrong for an exit code, or for text on standard error, that users must not see."""
    if code not in (0, 2):
        raise Wrong(f"exit code {code}: {errors[-2000:]}")
    if code == 2 and not REFUSED.search(errors):
        raise Wrong(f"no error is reported: {errors[:2000]!r}")
    if WARNING.search(errors):
        raise Wrong(f"a warning of Python: {errors[:2000]!r}")
    if not errors.replace("\n", "").isprintable() or len(errors) > LONGEST_MESSAGE:
        raise Wrong(f"the output is too long or could control the terminal: {errors[:2000]!r}")


@cache
def flags_of(*arguments: str) -> argparse.Namespace:
    """Cached: parsing takes as long as most commands here."""
    return read_flags(arguments)


def accepted(function: Callable[[], object]) -> bool:
    try:
        function()
    except RuntimeUserError as error:
        if not str(error).replace("\n", "").isprintable():
            raise Wrong(f"the message could control the terminal: {str(error)!r}") from error
        return False
    return True


def written(folder: Path, files: dict[str, bytes | str]) -> list[Path]:
    """Writes files; texts as UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return [folder / name for name in files]
