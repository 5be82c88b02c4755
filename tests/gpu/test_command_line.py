"""train, eval and predict with --gpu, on the emulated device: the same losses as on the CPU, and resumed runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import place
from tests.cli.running import nnc
from tests.gpu.commands import check_a_run, check_that_runs_continue, done, losses
from tests.gpu.emulation import cuda as emulation

__all__ = ["place"]


pytestmark = pytest.mark.usefixtures("emulated", "place")


def test_a_run_on_the_gpu() -> None:
    check_a_run()


def test_runs_continue() -> None:
    check_that_runs_continue()


def test_the_cache_keeps_targets_apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNC_CACHE", str(place / "cache"))
    lines = [
        done("train", "points.nn", "--timings", "--quiet", "--out", f"run{number}", *flags).out.splitlines()[0]
        for number, flags in enumerate(([], ["--gpu"], ["--gpu"], []))
    ]
    assert lines[:2] == ["cache: miss, no entry"] * 2
    assert all(line.startswith("cache: hit ") for line in lines[2:]) and lines[2] != lines[3]
    np.testing.assert_array_equal(losses("run1"), losses("run2"))


@pytest.mark.parametrize("cached", [False, True])
def test_too_little_memory(cached: bool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is reported before anything is allocated, whether the program was in the cache or not."""
    monkeypatch.setenv("NNC_CACHE", str(place / "cache"))
    if cached:
        done("eval", "points.nn", "--gpu")
    monkeypatch.setattr(emulation, "free_bytes", lambda: 1000)
    monkeypatch.setattr(emulation, "zeros", None)
    result = nnc("eval", "points.nn", "--gpu")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: Points needs more memory than this GPU has (graph train_step)\n")
    assert "expected: at most 1 kB" in result.err and result.err.count("note:") == 6  # five tensors and a hint
