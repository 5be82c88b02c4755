"""Metrics with totals in training, evaluation, checkpoints and standalone scripts: the same for every batch."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.datasets.dataset import Dataset, Split
from runtime.program import LoadedProgram
from runtime.training.checkpoint import encode, load
from runtime.training.progress import Reporter, epoch_line, results_text
from runtime.training.results import HISTORY_NUMBERS, EpochResult, Position, json_line
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import evaluate, predict, train
from tests.programs import compile_text

ROWS = 101
BATCHES = (1, 7, 64, ROWS)
PROGRAM = """
metric F1(threshold=0.5)(p: f32[B], y: f32[B]) {
  total hits: f32[] = sum(cast(p > threshold, "f32") * y)
  total found: f32[] = sum(cast(p > threshold, "f32"))
  total relevant: f32[] = sum(y)
  return 2 * hits / (found + relevant)
}
metric Extremes(p: f32[B], y: f32[B]) {
  total high: f32[2] = reduce_max(stack(p, y), axes=0)
  total low: f32[2] = reduce_min(stack(p, y), axes=0)
  return concat(reshape(low, [1, 2]), reshape(high, [1, 2]), axis=0)
}
fn stack(a: f32[B], b: f32[B]) { return concat(reshape(a, [B, 1]), reshape(b, [B, 1])) }
metric Weighted(p: f32[B], y: f32[B]) {
  total error: f32[] = sum((1 + y) * square(p - y))
  total weight: f32[] = sum(1 + y)
  return error / weight
}
fn mean_error(p: f32[B], y: f32[B]) { return mean(abs(p - y)) }
model M(x: f32[B, 3]) { return x |> Dense(1) |> sigmoid |> Reshape([]) }
train M { loss = Weighted; metrics = [F1, mean_error, Extremes, F1(0.2)]; optimizer = SGD(lr=0.1)
  batch = 7; epochs = 2 }
"""


def dataset() -> Dataset:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 3)).astype(np.float32)
    y = (x[:, 0] + generator.normal(size=ROWS) > 0).astype(np.float32)
    return Dataset("own", Split({"x": x, "y": y}), Split({"x": x[:50], "y": y[:50]}), {})


def program_of(batch: int) -> LoadedProgram:
    compiled = compile_text(PROGRAM.replace("batch = 7", f"batch = {batch}"))
    program = LoadedProgram(compiled.executable, compiled.manifest)
    program.initialize(3)
    return program


def expected(p: np.ndarray, y: np.ndarray) -> dict[str, object]:
    """The figures on the whole data, in f64."""
    p, y = p.astype(np.float64), y.astype(np.float64)
    found = {threshold: p > threshold for threshold in (0.5, 0.2)}
    f1 = {t: 2 * (found[t] * y).sum() / (found[t].sum() + y.sum()) for t in found}
    return {
        "loss": np.average((p - y) ** 2, weights=1 + y),
        "F1": f1[0.5],
        "mean_error": np.abs(p - y).mean(),
        "Extremes": [[p.min(), y.min()], [p.max(), y.max()]],
        "F1_2": f1[0.2],
    }


@pytest.mark.parametrize("batch", BATCHES)
def test_figures_do_not_depend_on_the_batch(batch: int):
    program, split = program_of(batch), dataset().train
    found = evaluate(program, split)
    p = predict(program_of(ROWS), {"x": split.arrays["x"]})["output"]
    for name, value in expected(p, split.arrays["y"]).items():
        np.testing.assert_allclose(found[name], value, rtol=2e-7, err_msg=name)
    assert isinstance(found["F1"], float) and list(found) == ["loss", "F1", "mean_error", "Extremes", "F1_2"]


def test_training_reports_resumes_and_logs_them(tmp_path: Path):
    program, data = program_of(7), dataset()
    folder = RunFolder.create("M", "text", tmp_path / "run")
    summary = train(program, data, run_folder=folder, reporter=Reporter(quiet=True))
    records = [json.loads(line) for line in folder.log.read_text().splitlines()]
    last = [record for record in records if "epoch" in record][-1]
    assert last["test"] == summary.test == evaluate(program, data.test)
    assert np.shape(last["train"]["Extremes"]) == (2, 2)
    position = load(folder.last, program_of(7))
    assert position.history[-1].test == last["test"]


def test_vectors_and_matrices_are_printed():
    results = {"loss": 0.5, "recall": [0.25, math.nan], "counts": [[10.0, 2.0], [0.0, 1234.0]], "f1": 0.125}
    assert results_text(results).split("\n") == [
        "loss: 0.5000\tf1: 0.1250",
        "recall",
        "       0       1",
        "  0.2500     nan",
        "counts",
        "        0     1",
        "  0    10     2",
        "  1     0  1234",
    ]
    assert epoch_line(EpochResult(1, results, results, 2.0)).split("\t")[:2] == [
        "loss: 0.5000 / 0.5000",
        "f1: 0.1250 / 0.1250",
    ]
    assert json.loads(json_line(results))["recall"] == [0.25, None]


def test_checkpoints_keep_fewer_epochs_with_many_numbers(tmp_path: Path):
    program, position = program_of(7), Position()
    matrix = [[0.0] * 100] * 100
    for epoch in range(1, 9):
        figures = {"loss": 1.0 / epoch, "counts": matrix}
        position = position.after(EpochResult(epoch, figures, figures, float(epoch)))
    (tmp_path / "a").write_bytes(encode(program, position, "hash"))
    history = load(tmp_path / "a", program).history
    assert history == position.history
    assert len(history) == HISTORY_NUMBERS // 20_004 == 4 and history[-1] == position.history[-1]
    fewer = replace(position, history=position.history[:1])
    (tmp_path / "a").write_bytes(encode(program, fewer, "hash"))
    with pytest.raises(Exception, match="metadata is not valid"):
        load(tmp_path / "a", program)
