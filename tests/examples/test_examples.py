"""The examples run and learn, as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler.driver import compile_file
from tests.programs import ROOT, initialized

EXAMPLES = sorted((ROOT / "examples").glob("*.nn"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_loss_falls(path: Path):
    """Twenty steps on one batch."""
    compiled = compile_file(path)
    program = initialized(compiled)
    generator = np.random.default_rng(0)
    for name, view in program.inputs("train_step", 32).items():
        classes = compiled.manifest.classes.get(name)
        view[...] = generator.integers(0, classes, view.shape) if classes else generator.random(view.shape)
    losses = [program.run("train_step", 32)["loss"].item() for _ in range(20)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_own_arrays(tmp_path: Path):
    """The two commands at the top of own_arrays.py."""

    def python(*arguments: str) -> str:
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        command = [sys.executable, *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    python(str(ROOT / "examples/own_arrays.py"), "waves.npz")
    program = str(ROOT / "examples/own_arrays.nn")
    assert "loss: " in python("-m", "compiler", "train", program, "--data", "waves.npz", "--epochs", "1")
