"""A small program with images of bytes, and what tests ask about its runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.running import Result, nnc

PROGRAM = """\
model Pixels(image: f32[B, 3, 3]) { return image |> Flatten |> Dense(2) }

train Pixels {
  data      = "pixels.npz"
  loss      = softmax_cross_entropy
  metrics   = [accuracy]
  optimizer = SGD(lr=0.1)
  batch     = 8
  epochs    = 2
}
"""
IMAGES = np.random.default_rng(1).integers(0, 256, (60, 3, 3)).astype(np.uint8)
LABELS = (IMAGES[:, 1, 1] > 127).astype(np.uint8)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a program and images of bytes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pixels.nn").write_text(PROGRAM)
    save("pixels.npz", IMAGES)
    return tmp_path


def save(path: str, images: np.ndarray, labels: np.ndarray = LABELS) -> None:
    """Images with test rows, which are the last 20."""
    np.savez(path, image=images[:40], label=labels[:40], image_test=images[40:], label_test=labels[40:])


def done(*arguments: str, code: int = 0) -> Result:
    result = nnc(*arguments)
    assert result.code == code, result.err
    return result


def loss_of(*arguments: str) -> float:
    return float(re.findall(r"^loss: (\S+)", done("eval", *arguments).out, re.MULTILINE)[0])


def predicted(images: np.ndarray, run: str = "run") -> tuple[np.ndarray, str]:
    """The outputs for images, and the warnings."""
    np.save("x.npy", images)
    result = done("predict", run, "--input", "x.npy", "--output", "y.npy")
    return np.load("y.npy"), result.err


def recorded(run: str = "run") -> dict[str, dict[str, object]]:
    return json.loads(Path(run, "data.json").read_text())["arrays"]
