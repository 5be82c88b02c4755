"""Models that draw random numbers outside of training: each example has its own, whatever the size of the batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.driver import Compilation
from compiler.ir.interpreter import interpret
from runtime.datasets.dataset import Split
from runtime.program import FIRST_EXAMPLE, LoadedProgram
from runtime.training.captures import capture_of, first_bad_batch
from runtime.training.trainer import _runner, evaluate, predict
from tests.programs import compile_text, initialized

ROWS = 131
SIZES = (1, 7, 64, 128)
GENERATOR = """
model G(batch_first: f32[B, 3]) {
  rows = random_uniform([B, 5])
  normal = random_normal([B, 2])
  truncated = transpose(random_truncated_normal([2, B], stddev=2), [1, 0])
  later = transpose(random_uniform([4, B]), [1, 0])
  several = reshape(random_uniform([2 * B, 3]), [B, 6])
  single = random_uniform([B])
  shared = batch_first * 0 + random_uniform([3])
  return rows, normal, truncated, later, several, single, shared
}
"""
DROPOUT = """
fn kept_on(x: f32[...]) { return where(random_uniform(shape(x)) < 0.5, x * 2, 0) }
model D(x: f32[B, 6]) { return x |> Dense(8, activation=tanh) |> kept_on |> Dense(1) }
fn loss(output: f32[B, 1], target: f32[B, 1]) { return mean((output - target) ** 2) }
train D { loss = loss; optimizer = SGD(lr=0.1) }
"""


def inputs(width: int, name: str) -> dict[str, np.ndarray]:
    return {name: np.random.default_rng(0).normal(size=(ROWS, width)).astype(np.float32)}


def in_batches(program: LoadedProgram, size: int) -> LoadedProgram:
    program.batch = size
    return program


@pytest.mark.parametrize(("text", "width", "name"), [(GENERATOR, 3, "batch_first"), (DROPOUT, 6, "x")])
def test_rows_do_not_depend_on_the_size_of_batches(text: str, width: int, name: str):
    program = initialized(compile_text(text))
    found = [predict(in_batches(program, size), inputs(width, name)) for size in SIZES]
    for other in found[1:]:
        for name, array in other.items():
            np.testing.assert_allclose(array, found[0][name], rtol=1e-5, atol=1e-6, err_msg=name)
    for name, array in found[0].items():
        assert len(np.unique(array, axis=0)) == (1 if name == "shared" else ROWS), name


def test_another_seed_gives_other_numbers_and_the_same_seed_the_same():
    program = initialized(compile_text(GENERATOR))
    plain, again, other, same = (predict(program, inputs(3, "batch_first"), seed) for seed in (None, None, 5, 5))
    for name, array in plain.items():
        assert np.array_equal(array, again[name]) and np.array_equal(other[name], same[name])
        assert not np.isin(array, other[name]).all(), name


def test_losses_do_not_depend_on_the_size_of_batches():
    program = initialized(compile_text(DROPOUT))
    split = Split(inputs(6, "x") | {"target": np.zeros((ROWS, 1), np.float32)})
    found = [evaluate(in_batches(program, size), split) for size in SIZES]
    assert [each["loss"] for each in found] == pytest.approx([found[0]["loss"]] * len(SIZES), rel=1e-5)


def graphs_with_places(compiled: Compilation) -> set[str]:
    return {name for name, graph in compiled.module.items() if graph.of_kind("place")}


def test_training_draws_as_before_by_step():
    compiled = compile_text(DROPOUT)
    assert graphs_with_places(compiled) == {"predict", "evaluate"}
    (drawn,) = (node for node in compiled.module["train_step"].nodes if node.op.name == "random")
    assert [value.name for value in drawn.operands] == ["seed", "step"]


def test_the_interpreter_draws_the_same_numbers():
    compiled = compile_text(GENERATOR)
    found = predict(initialized(compiled), inputs(3, "batch_first"))
    given = {"batch_first": inputs(3, "batch_first")["batch_first"][100:110], FIRST_EXAMPLE: np.array(100)}
    expected = interpret(compiled.module["predict"], given | {"seed": np.array(0), "step": np.array(0)}, 10)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name][100:110], array, rtol=1e-6, err_msg=name)


def test_a_captured_batch_runs_again_with_its_numbers():
    program = in_batches(initialized(compile_text(DROPOUT)), 64)
    arrays = inputs(6, "x") | {"target": np.zeros((ROWS, 1), np.float32)}
    arrays["target"][100] = np.inf
    test, order = _runner(program, "evaluate", arrays, "test"), np.arange(ROWS)
    bad = first_bad_batch(test, order, 64)  # type: ignore[arg-type]
    assert bad is not None and bad.step == 2
    capture = capture_of("evaluate", "test", test, order, 64, 1, bad, program.variables())  # type: ignore[arg-type]
    assert capture.inputs[FIRST_EXAMPLE] == 64 and not math.isfinite(capture.loss)
    assert capture.run(program) == capture.result
