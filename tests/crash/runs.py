"""Disturbed runs: their folder, how they are started, and the result that they must have."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.cli.conftest import PROGRAM
from tests.cli.running import Result, command, environment, nnc

CHECKPOINTS = ("last", "best")


@contextlib.contextmanager
def place(examples: int, epochs: int) -> Iterator[Path]:
    """A new folder, made the current one, with a program, `examples` examples for it, and a separate cache."""
    with tempfile.TemporaryDirectory(prefix="nnc-crash-") as base, contextlib.chdir(base):
        folder = Path(base, "place").resolve()
        folder.mkdir()
        os.chdir(folder)
        generator = np.random.default_rng(0)
        points = generator.normal(size=(examples, 4)).astype(np.float32)
        np.savez("points.npz", point=points, label=np.abs(points).argmax(1).clip(0, 2).astype(np.int32))
        np.save("points.npy", points[:7])
        Path("points.nn").write_text(PROGRAM.replace("epochs    = 4", f"epochs    = {epochs}"))
        cache = os.environ.get("NNC_CACHE")
        os.environ["NNC_CACHE"] = "cache"
        try:
            yield folder
        finally:
            os.environ.pop("NNC_CACHE")
            if cache is not None:
                os.environ["NNC_CACHE"] = cache


def start(arguments: list[str], faults: Mapping[str, Any] | None = None) -> subprocess.Popen[str]:
    """A command in a new process; with `faults`, one of its calls fails (see tests.crash.faulty)."""
    line = command(*arguments)
    if faults is not None:
        line = [sys.executable, "-m", "tests.crash.faulty", json.dumps({"root": os.getcwd(), **faults}), *arguments]
    return subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(arguments: list[str], faults: Mapping[str, Any] | None = None) -> Result:
    """The same, to its end."""
    process = start(arguments, faults)
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def trace(arguments: list[str]) -> list[tuple[str, str]]:
    """The input and output calls of a command with their files; call 1 is the first."""
    with tempfile.NamedTemporaryFile("r", prefix="nnc-trace-") as file:
        done = run(arguments, {"trace": file.name})
        assert done.code == 0, done.err
        return [(line.partition(" ")[0], line.rstrip("\n").partition(" ")[2]) for line in file]


def uninterrupted(folder: str = "whole") -> dict[str, Any]:
    """The state after an undisturbed run."""
    done = nnc("train", "points.nn", "--quiet", "--out", folder)
    assert done.code == 0, done.err
    return state(Path(folder))


def state(folder: Path) -> dict[str, Any]:
    """Everything that a run promises, bit for bit: tensors and metadata of its checkpoints, its epochs in the log."""
    found: dict[str, Any] = {}
    for name in CHECKPOINTS:
        data = (folder / f"{name}.safetensors").read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        metadata = {key: json.loads(text) for key, text in header.pop("__metadata__").items() if key != "sha256"}
        found[f"metadata of {name}"] = {**metadata, "history": list(map(timeless, metadata["history"]))}
        for tensor, entry in header.items():
            first, last = entry["data_offsets"]
            values = data[8 + length + first : 8 + length + last]
            found[f"{tensor} of {name}"] = (entry["dtype"], entry["shape"], values)
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found["log"] = [timeless(record) for record in records if "epoch" in record]
    return found


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A line of the log without the seconds, which differ in every run."""
    return {name: value for name, value in record.items() if name != "seconds"}


def differences(folder: Path, whole: Mapping[str, Any]) -> list[str]:
    """The names of the values that differ from `whole`."""
    found = state(folder)
    return [name for name in {**whole, **found} if found.get(name) != whole.get(name)]


def has_checkpoint(folder: Path) -> bool:
    return any((folder / f"{name}.safetensors").exists() for name in ("last", "previous"))


def finish(folder: str, epochs: int, whole: Mapping[str, Any], run: Callable[[list[str]], Result]) -> str:
    """Resumes a run to its end; returns the problem with its result, or an empty text."""
    done = run(["train", "--resume", folder, "--epochs", str(epochs), "--quiet"])
    if done.code:
        return f"cannot be resumed: {done.err}"
    if left := [path.name for path in Path(folder).glob(".*.tmp")]:
        return f"{', '.join(left)} not removed"
    wrong = differences(Path(folder), whole)
    return f"differs in {', '.join(wrong[:3])}" if wrong else ""


def one_error(text: str) -> bool:
    """Whether exactly one error is reported, and no traceback."""
    return text.count("error:") == 1 and "Traceback" not in text and "Exception" not in text


def copy(template: Path, folder: Path) -> None:
    """Makes `folder` the same as `template`."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
