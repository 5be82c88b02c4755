"""verify-resume: its output for a training that is bit-exact, for one that is not, and for one that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.cli.commands import verify as verifying
from runtime.training.comparison import differences
from runtime.training.run_folder import RunFolder
from tests.cli.running import nnc, process
from tests.runtime.tiny import run_tiny

EXACT = "bit-exact: 16 tensors with 184 values, the best epoch, and every line of the log\n"


def test_a_training_that_is_bit_exact(place: Path):
    done = process("verify-resume", "points.nn", "--epochs", "2", "--batch", "30", "--seed", "5", folder=place)
    assert (done.code, done.err) == (0, "")
    assert done.out == "trained 2 epochs in one go, and again, stopped and resumed 1 time\n" + EXACT
    assert not (place / "runs").exists()


def test_totals_of_metrics(place: Path):
    """A matrix, a vector and a loss that follow from totals: every line of the log is the same."""
    text = (place / "points.nn").read_text()
    text = text.replace("= softmax_cross_entropy", "= Own").replace("accuracy", "confusion_matrix, per_class_accuracy")
    own = """metric Own(logits: f32[B, n], label: i32[B]) {
  total entropy: f32[] = -sum(one_hot(label, n) * log_softmax(logits))
  total rows: f32[] = B
  return entropy / rows
}
"""
    (place / "totals.nn").write_text(own + text)
    done = nnc("verify-resume", "totals.nn", "--epochs", "2")
    assert (done.code, done.err) == (0, "") and done.out.endswith(EXACT)


def test_processes_that_are_killed(place: Path):
    done = nnc("verify-resume", "points.nn", "--epochs", "2", "--kill")
    assert (done.code, done.err) == (0, "") and "and again, killed and resumed" in done.out and done.out.endswith(EXACT)


def test_a_training_that_is_not(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Its data are changed while it is stopped, and what would show it is removed."""
    train = verifying.train

    def train_and_change(flags: Any, epochs: int, how: str, folder: Path) -> None:
        train(flags, epochs, how, folder)
        if folder.name == "pieces":
            with np.load("points.npz") as arrays:
                np.savez("points.npz", point=2 * arrays["point"], label=arrays["label"])
            (folder / "data.json").unlink(missing_ok=True)

    monkeypatch.setattr(verifying, "train", train_and_change)
    done = nnc("verify-resume", "points.nn", "--epochs", "2")
    assert done.code == 1
    _, verdict, tensor, *_, line = done.out.splitlines()
    assert verdict == "not bit-exact:"
    assert tensor.startswith(
        '  tensor "batch_norm_1.beta" of last.safetensors: 8 of 8 values differ, the first at [0]: '
    )
    assert line.startswith('  line 2 of the epochs in the log: {"epoch": 2, ')


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ("points.nn --data none.npz", 'there is no data set "none.npz"'),
        ("points.nn --epochs 1", "--epochs takes a number of epochs"),
        ("points.nn --epochs x --kill", "--epochs takes a number of epochs"),
        ("points.ir", "verify-resume needs a program"),
        ("points.nn --out run", "verify-resume has no flag --out"),
        ("none.nn --kill", "none.nn"),
    ],
)
def test_mistakes(arguments: str, fragment: str, place: Path):
    done = nnc("verify-resume", *arguments.split())
    assert (done.code, done.out) == (2, "") and fragment in done.err and done.err.count("error:") == 1


def test_what_differs_is_named(tmp_path: Path):
    run_tiny(tmp_path / "one")
    run_tiny(tmp_path / "same")
    run_tiny(tmp_path / "other", lr=0.5)
    run_tiny(tmp_path / "longer", epochs=4)
    one, same, other, longer = (RunFolder.open(tmp_path / name) for name in ("one", "same", "other", "longer"))
    assert list(differences(one, same)) == []
    last, best, line = differences(one, other)
    assert last.startswith('tensor "w" of last.safetensors: 18 of 18 values differ, the first at [0, 0]: ')
    assert best.startswith('tensor "w" of best.safetensors: ') and line.startswith("line 1 of the epochs in the log: ")
    assert list(differences(one, longer))[-1].startswith("line 4 of the epochs in the log: null and {")
    same.best.unlink()
    assert list(differences(one, same)) == ["best.safetensors is in only one run"]
