"""A tiny data set, and a program for it with everything that a run must restore: dropout, states and slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

PROGRAM = """\
# Three classes of points; a run takes milliseconds.
model Points(point: f32[B, 4]) {
  return point |> Dense(8) |> BatchNorm |> relu |> Dropout(0.2) |> Dense(3)
}

train Points {
  data      = "points.npz"
  loss      = softmax_cross_entropy
  metrics   = [accuracy]
  optimizer = SGD(lr=0.1, momentum=0.9, decay=1e-3)
  batch     = 16
  epochs    = 4
}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: points.nn, points.npz, and points.npy with only inputs."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    points = generator.normal(size=(90, 4)).astype(np.float32)
    labels = np.abs(points).argmax(1).clip(0, 2).astype(np.int32)
    np.savez(tmp_path / "points.npz", point=points, label=labels)
    np.save(tmp_path / "points.npy", points[:7])
    (tmp_path / "points.nn").write_text(PROGRAM)
    return tmp_path
