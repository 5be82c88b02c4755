"""train, eval and predict with --gpu, on the emulated device: the same losses as on the CPU, and runs that go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import place
from tests.cli.running import Result, nnc
from tests.gpu.emulation import cuda as emulation

__all__ = ["place"]


pytestmark = pytest.mark.usefixtures("emulated", "place")


def done(*arguments: str | Path) -> Result:
    result = nnc(*arguments)
    assert (result.code, result.err) == (0, "")
    return result


def losses(folder: str) -> np.ndarray:
    """Train and test loss of each epoch."""
    epochs = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
    return np.array([[epoch[part]["loss"] for part in ("train", "test")] for epoch in epochs if "epoch" in epoch])


def test_a_run_on_the_gpu() -> None:
    done("train", "points.nn", "--gpu", "--out", "gpu")
    done("train", "points.nn", "--gpu", "--no-graph", "--out", "eager")
    done("train", "points.nn", "--out", "cpu")
    assert losses("gpu").shape == (4, 2)
    np.testing.assert_array_equal(losses("gpu"), losses("eager"))
    np.testing.assert_allclose(losses("gpu"), losses("cpu"), rtol=1e-5)
    assert done("eval", "gpu", "--gpu").out == done("eval", "gpu").out
    for name, flags in (("here.npy", []), ("there.npy", ["--gpu"])):
        done("predict", "gpu", "--input", "points.npy", "--output", name, *flags)
    np.testing.assert_allclose(np.load("there.npy"), np.load("here.npy"), rtol=1e-5, atol=1e-6)


def test_runs_go_on() -> None:
    """On the device as if they had never stopped; from the one to the other within rounding."""
    done("train", "points.nn", "--gpu", "--out", "whole")
    for name, first, then in (("same", ["--gpu"], ["--gpu"]), ("from", [], ["--gpu"]), ("to", ["--gpu"], [])):
        done("train", "points.nn", "--epochs", "2", "--out", name, *first)
        done("train", "--resume", name, "--epochs", "4", *then)
    np.testing.assert_array_equal(losses("same"), losses("whole"))
    for name in ("from", "to"):
        np.testing.assert_allclose(losses(name), losses("whole"), rtol=1e-5)


def test_the_cache_keeps_targets_apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNC_CACHE", str(place / "cache"))
    told = [
        done("train", "points.nn", "--timings", "--quiet", "--out", f"run{number}", *flags).out.splitlines()[0]
        for number, flags in enumerate(([], ["--gpu"], ["--gpu"], []))
    ]
    assert told[:2] == ["cache: miss, no entry"] * 2
    assert all(line.startswith("cache: hit ") for line in told[2:]) and told[2] != told[3]
    np.testing.assert_array_equal(losses("run1"), losses("run2"))


@pytest.mark.parametrize("cached", [False, True])
def test_too_little_memory(cached: bool, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before anything is allocated, whether the program was compiled before or not."""
    monkeypatch.setenv("NNC_CACHE", str(place / "cache"))
    if cached:
        done("eval", "points.nn", "--gpu")
    monkeypatch.setattr(emulation, "free_bytes", lambda: 1000)
    monkeypatch.setattr(emulation, "zeros", None)
    result = nnc("eval", "points.nn", "--gpu")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: Points needs more memory than this GPU has (graph train_step)\n")
    assert "expected: at most 1 kB" in result.err and result.err.count("note:") == 5
