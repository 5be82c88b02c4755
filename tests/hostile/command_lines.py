"""Command lines as untrusted input: one word in each line of a file. Damaged ones run with streams that may be full."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from compiler.cli import run as cli
from tests.hostile.attempts import Wrong, judge, nnc, written

LINES = (
    "check points.nn --strict",
    "summary points.nn",
    "emit points.nn --stage source --target numpy",
    "emit points.nn --after simplify:1 --disable fusion",
    "emit points.nn --diff simplify --target cupy --batch 4",
    "opt --list",
    "plan points.nn --batch 4,8 --seed 3",
    "explain-fusion points.nn --set train.batch=2",
    "eval points.nn --data points.npz --memory-limit 1GB",
    "eval run --best",
    "predict run --input points.npy --output out.npy --seed 4",
    "train points.nn --seed 1 --batch 16 --quiet --out new",
    "train --resume run --timings",
)
LONGEST_LINE = 200  # words


def make_command_lines(folder: Path, make_points: Callable[[Path], None]) -> list[Path]:
    """The lines, next to a program with its data and a run of it."""
    make_points(folder)
    with contextlib.chdir(folder):
        assert nnc("train", "points.nn", "--epochs", "1", "--out", "run", "--quiet")[0] == 0
    return written(folder, {f"{number}.line": "\n".join(line.split()) for number, line in enumerate(LINES)})


def words_of(content: bytes) -> list[str]:
    """The words of a damaged line. A path is the user's to choose, so none may leave the folder here."""
    text = content.decode(errors="surrogateescape").replace("\0", "")  # no system can pass a zero byte
    words = text.split("\n")[:LONGEST_LINE]
    return [word.replace("/", "").replace("~", "").replace("..", "") for word in words]


def try_command_line(path: Path, choose: random.Random) -> bool:
    words = words_of(path.read_bytes())
    if words[0] == "train":
        words += ["--epochs", "1"]  # more would take as long as they say
    if words[0] in ("verify-resume", "profile", "annotate"):
        return False  # these start processes or measure
    with contextlib.chdir(path.parent), stream(choose.random()) as out:
        errors = io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                code = cli.run(words, time.perf_counter())
        except SystemExit as leaving:
            code = leaving.code
        if not isinstance(code, int):
            raise Wrong(f"exit code {code!r}")
        judge(code, errors.getvalue())
    return code == 0


@contextlib.contextmanager
def stream(chance: float) -> Iterator[io.TextIOBase | None]:
    """Standard output: mostly a buffer, sometimes a device that is full, or closed."""
    if chance < 0.1:
        with mock.patch.object(sys, "stdout", None):
            yield None
    elif chance < 0.2 and Path("/dev/full").exists():
        full = open("/dev/full", "w")  # noqa: SIM115  # closing it fails
        try:
            yield full
        finally:
            with contextlib.suppress(OSError):
                full.close()
    else:
        yield io.StringIO()
