"""What needs a separate process: pipes, signals, encodings, hash seeds, and that a process does what the tests do."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.running import command, environment, nnc, process
from tests.programs import MODELS, ROOT

HASH_ALL_STAGES = f"""
import hashlib
from compiler.driver import load_tree
from compiler.cli.flags import STAGES
from compiler.reports.stages import show_stage
from compiler.driver import stages_of_program
for name in {MODELS!r}:
    for stage in STAGES:
        text = show_stage(stages_of_program(load_tree(f"models/{{name}}.nn")), stage)
        print(name, stage, len(text), hashlib.sha256(text.encode()).hexdigest())
"""


def test_a_process_does_the_same(place: Path):
    trained = process("train", "points.nn", "--epochs", "1", "--out", "run", folder=place)
    assert (trained.code, trained.err) == (0, "") and "\r" not in trained.out and "step 1" in trained.out
    mistaken = process("train", "points.nn", "--batch", "0", folder=place)
    assert (mistaken.code, mistaken.out) == (2, "")
    assert mistaken.err == nnc("train", "points.nn", "--batch", "0").err


def test_every_stage_is_the_same_under_every_hash_seed():
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HASH_ALL_STAGES],
            cwd=ROOT,
            env=environment(PYTHONHASHSEED=seed),
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1", "424242")
    ]
    texts = [each.communicate(timeout=120)[0] for each in started]
    assert texts[0].count("\n") == len(MODELS) * 6
    assert texts[0] == texts[1] == texts[2]


def test_a_reader_that_leaves():
    with subprocess.Popen(
        command("emit", ROOT / "models/cnn.nn"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("summary", ROOT / "models/mlp.nn"),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2 and done.stderr.startswith("error: cannot write the output\n")
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str, place: Path):
    words = shlex.join(command("train", "points.nn", "--epochs", "1", "--out", "run"))
    done = subprocess.run(f"{words} {closed}", cwd=place, env=environment(), shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert (place / "run/last.safetensors").exists() and nnc("eval", "run").code == 0
    words = shlex.join(command("train", "points.nn", "--batch", "0"))
    assert subprocess.run(f"{words} {closed}", cwd=place, env=environment(), shell=True, timeout=60).returncode == 2


def test_a_run_in_use(place: Path):
    """One process trains, whoever comes second is told so and changes nothing; eval may read."""
    long = ("--epochs", "100000", "--quiet")
    with subprocess.Popen(command("train", "points.nn", "--out", "run", *long), cwd=place, env=environment()) as first:
        try:
            while not (place / "run/best.safetensors").exists():
                assert first.poll() is None
                time.sleep(0.02)
            second = nnc("train", "--resume", "run")
            assert second.code == 2 and 'error: the run "run" is in use: another process is training it' in second.err
            assert nnc("eval", "run").code == 0
        finally:
            first.kill()
    assert nnc("train", "--resume", "run", "--epochs", "1").code == 0  # the lock dies with the process


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_error_that_nobody_can_read():
    with open("/dev/full", "w") as full:
        for arguments in (("train", "none.nn"), ("train",), ("train", "mlp", "--batch", "0")):
            assert subprocess.run(command(*arguments), env=environment(), stderr=full, timeout=60).returncode == 2


def test_a_terminal_that_knows_ascii_alone():
    shown = process("summary", ROOT / "models/softmax.nn", PYTHONIOENCODING="ascii")
    assert (shown.code, shown.err) == (0, "") and "7,850" in shown.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_outside_of_training(number: signal.Signals, code: int):
    """While flags are read: it ends without a traceback."""
    script = f"""
import os
from compiler import __main__
from compiler.cli import run as cli
cli.read_flags = lambda arguments: os.kill(os.getpid(), {int(number)})
raise SystemExit(__main__.main())
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_is_saved_and_continues(place: Path, number: signal.Signals, code: int):
    with subprocess.Popen(
        command("train", "points.nn", "--epochs", "1000000", "--out", "run"),
        cwd=place,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout and running.stderr
        assert "rows to train" in running.stdout.readline() and "step 1" in running.stdout.readline()
        os.kill(running.pid, number)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == code
    assert errors.startswith(f"stopped by {number.name}; epoch ") and 'is saved in "run"' in errors
    epoch = int(errors.split("epoch ")[1].split()[0])
    resumed = nnc("train", "--resume", "run", "--epochs", str(epoch + 1))
    assert resumed.code == 0 and f"step {epoch + 1} " in resumed.out
