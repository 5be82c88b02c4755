"""Programs that need memory outside of the plan: initial values by QR, normal numbers, gradients of large tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROWS = 512
TRAIN = """
train M { data = "data.npz"; loss = softmax_cross_entropy; optimizer = SGD(lr=0.01); batch = 64 }
"""
PROGRAMS = {  # name -> the model
    "wide-lstm": "model M(x: f32[B, 8, 64]) { return x |> RNN(LSTM(1024)) |> Dense(10) }",
    "orthogonal": "model M(x: f32[B, 64]) { return x |> Dense(2000) |> Dense(2000, init=orthogonal) |> Dense(10) }",
    "embedding": "model M(x: i32[B, 100]) { return x |> Embedding(100000, 64) |> Flatten |> Dense(10) }",
    "normal-embedding": "model M(x: i32[B]) { return x |> Embedding(400000, 64, init=he_normal) |> Dense(10) }",
}


def write_case(name: str) -> tuple[Path, str]:
    """Writes a program and its data into the working folder; returns the paths of both."""
    rng = np.random.default_rng(0)
    model = PROGRAMS[name]
    shape = tuple(int(size) for size in model.partition("[B")[2].partition("]")[0].split(",") if size.strip())
    x = rng.integers(0, 100_000, (ROWS, *shape), np.int32) if "i32" in model else rng.random((ROWS, *shape), np.float32)
    path, data = Path("program.nn"), "data.npz"
    path.write_text(model + TRAIN)
    np.savez(data, x=x, label=rng.integers(0, 10, ROWS, np.int32))
    return path, data
