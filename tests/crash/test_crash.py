"""A sample of tests/crash/run.py (kills, failing calls and signals), and a test that its faults are real."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import environment
from tests.crash.run import Tally, faults, kills, signals
from tests.crash.runs import place, trace

SHARE = 0.02  # of the faults
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")
HALVE_CALL_2 = """
import sys
from tests.crash.faulty import Faults, install
install(Faults(sys.argv[1], at=2, action="short"))
"""


def no_failures(tally: Tally) -> None:
    assert tally.tried and not tally.failures


def test_kills():
    no_failures(kills(4, random.Random(1)))


def test_faults():
    no_failures(faults(SHARE, ["train", "eval"], random.Random(1)))


def test_signals():
    no_failures(signals(2, random.Random(1)))


def test_every_call_of_a_save_is_counted():
    with place(20, 1):
        calls = trace(["train", "points.nn", "--quiet", "--out", "run"])
    temporary, previous = "run/.last.safetensors.tmp", "run/.previous.safetensors.tmp"
    save = [("open", temporary), ("write", temporary), ("fsync", temporary), ("close", temporary)]
    save += [("link", previous), ("replace", "run/previous.safetensors"), ("unlink", previous)]
    save += [("replace", "run/last.safetensors"), ("unlink", temporary)]
    save += [("open", "run"), ("fsync", "run"), ("close", "run")]
    save += [("close", "run")]  # the lock of the run
    assert calls[-len(save) :] == save


@pytest.mark.parametrize(("buffering", "written"), [(0, b"1234"), (-1, b"12345678")])
def test_half_a_write(buffering: int, written: bytes, tmp_path: Path):
    """Code that ignores the result of a write loses the rest; Python's buffers check it."""
    script = f"{HALVE_CALL_2}\nwith open('file', 'wb', {buffering}) as file:\n    file.write(b'12345678')"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path, env=environment(), check=True)
    assert (tmp_path / "file").read_bytes() == written
