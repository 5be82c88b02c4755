"""The command that proves for a user's own model that resuming is bit-exact: verify-resume."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compiler.cli.programs import read_number, refuse_ir
from runtime.training import comparison
from runtime.training.run_folder import RunFolder

NOT_EXACT = 1  # exit code
MOST_EPOCHS = 10_000
POLL_SECONDS = 0.002


class Failed(Exception):
    """A training ended with this exit code, after it had printed why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def verify_resume_command(flags: argparse.Namespace) -> int:
    """Trains in one go, and once more in pieces, each in a separate process; compares the two runs."""
    refuse_ir(flags.file, "verify-resume")
    epochs = read_number(flags.epochs, "--epochs takes a number of epochs", 2, MOST_EPOCHS)
    with tempfile.TemporaryDirectory(prefix="nnc-verify-") as folder:
        straight, pieces = Path(folder, "straight"), Path(folder, "pieces")
        try:
            train(flags, epochs, "--out", straight)
            times = train_killed(flags, epochs, pieces) if flags.kill else train_stopped(flags, epochs, pieces)
        except Failed as failed:
            return failed.code
        return verdict(RunFolder.open(straight), RunFolder.open(pieces), times, "killed" if flags.kill else "stopped")


def verdict(straight: RunFolder, pieces: RunFolder, times: int, how: str) -> int:
    """Prints whether the runs are the same; returns the exit code."""
    found, epochs = list(comparison.differences(straight, pieces)), len(comparison.epochs(straight))
    often = f"{times} time{'' if times == 1 else 's'}"
    print(f"trained {epochs} epochs in one go, and again, {how} and resumed {often}")
    if found:
        print("\n  ".join(["not bit-exact:", *found]))
        return NOT_EXACT
    arrays, _ = comparison.tensors(straight.last)
    values = sum(array.size for array in arrays.values())
    print(f"bit-exact: {len(arrays)} tensors with {values:,} values, the best epoch, and every line of the log")
    return 0


def train_stopped(flags: argparse.Namespace, epochs: int, folder: Path) -> int:
    """Trains an epoch at a time; returns how often it was resumed."""
    for epoch in range(1, epochs + 1):
        train(flags, epoch, "--out" if epoch == 1 else "--resume", folder)
    return epochs - 1


def train_killed(flags: argparse.Namespace, epochs: int, folder: Path) -> int:
    """Kills the training after each save, wherever it is at that moment; returns how often it was resumed."""
    checkpoint, saved, times = folder / "last.safetensors", 0, 0
    while True:
        process = start(flags, epochs, "--resume" if saved else "--out", folder)
        while process.poll() is None and (now := time_of_change(checkpoint)) in (0, saved):
            time.sleep(POLL_SECONDS)
        if process.poll() is not None:
            finish(process)
            return times
        process.kill()
        process.communicate()
        saved, times = now, times + 1


def time_of_change(path: Path) -> int:
    """When a file was last replaced; 0 for none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def train(flags: argparse.Namespace, epochs: int, how: str, folder: Path) -> None:
    finish(start(flags, epochs, how, folder))


def start(flags: argparse.Namespace, epochs: int, how: str, folder: Path) -> subprocess.Popen[str]:
    """Starts `nnc train` with the flags of this command in a separate process."""
    given = [argument for argument in flags.arguments[1:] if argument != "--kill"]
    command = [sys.executable, "-m", "compiler", "train", *given, "--quiet", "--epochs", str(epochs), how, str(folder)]
    # The same code as here, wherever it was imported from.
    path = os.pathsep.join([str(Path(__file__).resolve().parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for a training; if it fails, prints its errors and raises Failed."""
    _, errors = process.communicate()
    if process.returncode:
        print(errors, end="", file=sys.stderr)
        raise Failed(process.returncode if process.returncode > 0 else 128 - process.returncode)
