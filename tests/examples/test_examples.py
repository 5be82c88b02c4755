"""The examples run as their first lines say, and their losses fall."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler.diagnostics import Diagnostics
from compiler.driver import check_models, compile_file, compile_tree, load_tree
from compiler.reports.summary import totals
from tests.programs import ROOT, initialized

RESNET = ROOT / "examples/resnet50.nn"
EXAMPLES = sorted({*(ROOT / "examples").glob("*.nn")} - {RESNET})  # ResNet-50 is too large to train here


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


def test_resnet50_has_the_parameters_of_the_original():
    """25,557,032 as in torchvision, where each convolution and its BatchNorm share one bias; and running statistics."""
    tree = load_tree(RESNET, [("batch", "1")])
    (model,) = check_models(tree, None, Diagnostics())
    assert totals(model) == (25_557_032, 53_120)


def test_resnet50_runs_a_step():
    """On a batch of one; its loss is about that of a random guess among 1,000 classes."""
    compiled = compile_tree(load_tree(RESNET, [("batch", "1")]))
    program = initialized(compiled)
    for view in program.inputs("train_step", 1).values():
        view[...] = 1
    assert 0 < program.run("train_step", 1)["loss"].item() < 3 * np.log(1000)


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
