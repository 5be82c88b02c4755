"""Parameter folding: what depends on variables alone moves out of the inference graphs, and is up to date when they run."""

from __future__ import annotations

import numpy as np

from compiler.ir.graph import Module
from compiler.ir.interpreter import interpret
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.ir.verifier import verify_module
from compiler.passes.parameter_folding import fold_parameters
from runtime.program import LoadedProgram
from tests.programs import BATCH, compile_text, compiled_model, initialized, run_program, values_for

BEFORE = """
graph predict(%x: f32[B,2] input, %w: f32[2,3] param, %v: f32[3] state) {
  %0: f32[3] = exp(%v)
  %1: f32[2,3] = mul(%w, %0)
  %2: f32[3,2] = transpose(%1, permutation=[1,0])
  %3: f32[2,3] = transpose(%2, permutation=[1,0])
  %4: f32[B,3] = matmul(%x, %3)
  %5: f32[B,3] = add(%4, %v)
  return y=%5
}

graph evaluate(%x: f32[B,2] input, %w: f32[2,3] param, %v: f32[3] state) {
  %0: f32[3] = exp(%v)
  %1: f32[2,3] = mul(%w, %0)
  %2: f32[B,3] = matmul(%x, %1)
  %3: f32[B,3] = add(%2, %0)
  %4: i32[3] = iota(size=3)
  %5: f32[3] = cast(%4, dtype="f32")
  %6: f32[B,3] = sub(%3, %5)
  return y=%6
}

graph train_step(%x: f32[B,2] input, %w: f32[2,3] param) {
  %0: f32[2,3] = exp(%w)
  %1: f32[B,3] = matmul(%x, %0)
  return y=%1, w=%0
}
"""
AFTER = """
graph predict(%x: f32[B,2] input, %w: f32[2,3] param, %v: f32[3] state, %folded.0: f32[2,3] folded) {
  %0: f32[3,2] = transpose(%folded.0, permutation=[1,0])
  %1: f32[2,3] = transpose(%0, permutation=[1,0])
  %2: f32[B,3] = matmul(%x, %1)
  %3: f32[B,3] = add(%2, %v)
  return y=%3
}

graph evaluate(%x: f32[B,2] input, %w: f32[2,3] param, %v: f32[3] state, %folded.0: f32[2,3] folded, %folded.1: f32[3] folded) {
  %0: f32[B,3] = matmul(%x, %folded.0)
  %1: f32[B,3] = add(%0, %folded.1)
  %2: i32[3] = iota(size=3)
  %3: f32[3] = cast(%2, dtype="f32")
  %4: f32[B,3] = sub(%1, %3)
  return y=%4
}

graph train_step(%x: f32[B,2] input, %w: f32[2,3] param) {
  %0: f32[2,3] = exp(%w)
  %1: f32[B,3] = matmul(%x, %0)
  return y=%1, w=%0
}

graph prepare(%v: f32[3] state, %w: f32[2,3] param) {
  %0: f32[3] = exp(%v)
  %1: f32[2,3] = mul(%w, %0)
  return folded.0=%1, folded.1=%0
}
"""
ONLY_VIEWS = """
graph predict(%x: f32[B,2] input, %w: f32[6] param) {
  %0: f32[2,3] = reshape(%w, shape=[2,3])
  %1: f32[B,3] = matmul(%x, %0)
  %2: f32[3] = broadcast(0.5, shape=[3])
  %3: f32[B,3] = add(%1, %2)
  return y=%3
}
"""
NORMALIZED = """
model M(x: f32[B, 4]) { return x |> Dense(3) |> BatchNorm }
train M { loss = mean_squared_error; optimizer = SGD(lr=0.1); batch = 8 }
"""


def folded(text: str) -> Module:
    module = fold_parameters(read_module(text))
    verify_module(module, "fold-parameters")
    return module


def test_it_moves_what_two_graphs_compute_once():
    module = folded(BEFORE)
    assert print_module(module).strip() == AFTER.strip()
    assert print_module(folded(AFTER)).strip() == AFTER.strip()


def test_it_leaves_views_and_numbers():
    assert print_module(folded(ONLY_VIEWS)).strip() == ONLY_VIEWS.strip()


def test_it_keeps_its_argument_and_its_meaning():
    module = read_module(BEFORE)
    after = fold_parameters(module)
    assert print_module(module).strip() == BEFORE.strip()
    for name in ("predict", "evaluate"):
        inputs = values_for(module[name], BATCH)
        expected = interpret(module[name], inputs, BATCH)["y"]
        prepared = interpret(after["prepare"], inputs, BATCH)
        assert np.array_equal(interpret(after[name], inputs | prepared, BATCH)["y"], expected)


def test_folded_values_are_not_variables_of_the_program():
    compiled = compiled_model("cnn")
    assert "prepare" in compiled.optimized
    names = [spec.name for spec in compiled.manifest.variables]
    assert list(initialized(compiled).variables()) == names
    assert not [name for name in names if name.startswith("folded")]


def test_an_evaluation_sees_the_variables_as_they_are():
    """After a training step, and after writing to them, with inputs that were filled before."""
    compiled = compile_text(NORMALIZED)
    program = initialized(compiled)
    inputs = values_for(compiled.module["train_step"], BATCH)
    for change in (lambda: None, lambda: run_program(program, "train_step", inputs, BATCH), lambda: write(program)):
        change()
        variables = {name: np.array(view) for name, view in program.variables().items()}
        for name in ("evaluate", "predict"):
            expected = interpret(compiled.module[name], {**inputs, **variables}, BATCH)
            found = run_program(program, name, inputs, BATCH)
            for key, value in expected.items():
                np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)


def write(program: LoadedProgram) -> None:
    for name in ("dense_1.w", "batch_norm_1.gamma", "batch_norm_1.running_mean"):
        program.variables()[name][...] *= 3
