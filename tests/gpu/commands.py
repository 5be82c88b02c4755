"""What train, eval and predict with --gpu must give, on the emulated device or a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cli.running import Result, nnc

CLOSE = 1e-4  # relative: f32 after some twenty steps


def done(*arguments: str | Path) -> Result:
    result = nnc(*arguments)
    assert (result.code, result.err) == (0, "")
    return result


def losses(folder: str) -> np.ndarray:
    """Train and test loss of each epoch."""
    epochs = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
    return np.array([[epoch[part]["loss"] for part in ("train", "test")] for epoch in epochs if "epoch" in epoch])


def evaluated(folder: str, *flags: str) -> list[float]:
    """What eval prints: loss and accuracy, with four digits."""
    return [float(part.partition(": ")[2]) for part in done("eval", folder, *flags).out.splitlines()[0].split("\t")]


def check_a_run() -> None:
    """Losses and outputs are those of the CPU; with graphs and without, they have the same bits."""
    done("train", "points.nn", "--gpu", "--out", "gpu")
    done("train", "points.nn", "--gpu", "--no-graph", "--out", "eager")
    done("train", "points.nn", "--out", "cpu")
    assert losses("gpu").shape == (4, 2)
    np.testing.assert_array_equal(losses("gpu"), losses("eager"))
    np.testing.assert_allclose(losses("gpu"), losses("cpu"), rtol=CLOSE)
    np.testing.assert_allclose(evaluated("gpu", "--gpu"), evaluated("gpu"), atol=2e-4)
    for name, flags in (("here.npy", []), ("there.npy", ["--gpu"])):
        done("predict", "gpu", "--input", "points.npy", "--output", name, *flags)
    np.testing.assert_allclose(np.load("there.npy"), np.load("here.npy"), rtol=CLOSE, atol=1e-5)


def check_that_runs_continue() -> None:
    """On the same device as if they had never stopped; on another one equal up to rounding, with a warning."""
    done("train", "points.nn", "--gpu", "--out", "whole")
    for name, first, then in (("same", ["--gpu"], ["--gpu"]), ("from", [], ["--gpu"]), ("to", ["--gpu"], [])):
        done("train", "points.nn", "--epochs", "2", "--out", name, *first)
        resumed = nnc("train", "--resume", name, "--epochs", "4", *then)
        assert resumed.code == 0 and ("found: target " in resumed.err) == bool(resumed.err) == (first != then)
    np.testing.assert_array_equal(losses("same"), losses("whole"))
    for name in ("from", "to"):
        np.testing.assert_allclose(losses(name), losses("whole"), rtol=CLOSE)
