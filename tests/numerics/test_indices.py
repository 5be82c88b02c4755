"""Indices that leave their tables: generated code and the interpreter fail alike, in all graphs, and name the place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.driver import Compilation
from compiler.ir.interpreter import interpret
from runtime.errors import IndexOutside
from tests.programs import compile_text, initialized, run_program

FORMS = {  # the body of a model of `word: i32[B, 3]` whose words are 0 … 9
    "embedding": "return word - 1 |> Embedding(9, 4)",
    "too large": "return word + 1 |> Embedding(10, 4)",
    "a column": "return word[:, 1] * 2 |> Embedding(18, 4)",
    "gather": "return gather(full([9, 4], 0.5), word - 1)",
    "a scalar table": "return gather(iota(9), word - 1) * 0.5",
    "one hot": "return one_hot(word - 1, 9)",
    "checked": 'return cast(check_index(word - 1, 9), "f32")',
    "transposed": "return transpose(word, [1, 0]) - 1 |> Embedding(9, 4)",
    "flipped examples": "return flip(word, 0) - 1 |> Embedding(9, 4)",
    "scan": "return scan(Step, word)",
    "a sequence": "return scan(Plain, word - 1)",
    "floats": 'return cast(cast(word, "f32") - 1, "i32") |> Embedding(9, 4)',
    "twice": "return gather(ones([9]), gather(iota(9), word - 1))",
}
TEXT = """
cell Plain(x: i32[B]) {{ param t: f32[9, 4] = uniform; carry h: f32[B, 4] = 0; h = h + gather(t, x); return h }}
cell Step(x: i32[B]) {{ param t: f32[9, 4] = uniform; carry h: f32[B, 4] = 0; h = h + gather(t, x - 1); return h }}
fn own(y, target: f32[B]) {{ return mean(square(y)) + mean(target) }}
model M(word: i32[B, 3]) {{ param w: f32[] = ones; y = run(word); return y * w }}
fn run(word) {{ {} }}
train M {{ loss = own; optimizer = SGD(lr=0.1); batch = 8 }}
"""
NO_ROW = {"transposed", "flipped examples"}


def program(form: str) -> Compilation:
    return compile_text(TEXT.format(FORMS[form]))


def caught(run: Callable[[], object]) -> tuple[object, ...]:
    with pytest.raises(IndexOutside) as found:
        run()
    error = found.value
    return error.value, error.size, error.example, error.place, error.layer


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("graph", ["train_step", "evaluate", "predict"])
@pytest.mark.parametrize("form", FORMS)
def test_code_and_interpreter_fail_alike(form: str, graph: str, batch: int):
    compiled = program(form)
    loaded = initialized(compiled)
    words = np.full((batch, 3), 5, np.int32)
    words[-1, 1] = 9 if form in ("too large", "a column") else 0
    variables = {name: np.array(value) for name, value in loaded.variables().items()}
    inputs = {**variables, "word": words, "target": np.zeros(batch, np.float32)}
    given = {value.name: inputs[value.name] for value in compiled.module[graph].inputs}
    value, size = {"too large": (10, 10), "a column": (18, 18)}.get(form, (-1, 9))
    seen = caught(lambda: run_program(loaded, graph, inputs, batch))
    assert seen[:2] == (value, size)
    assert seen[2] == (None if form in NO_ROW else batch - 1)
    assert str(seen[3]).startswith("test.nn:")
    assert caught(lambda: interpret(compiled.module[graph], given, batch)) == seen
    loaded.assign(variables)
    inputs["word"] = np.full((batch, 3), 5, np.int32)
    run_program(loaded, graph, inputs, batch)
    interpret(compiled.module[graph], {**given, "word": inputs["word"]}, batch)


def test_the_gradient_uses_the_checked_index():
    """The row that is read is the one that is trained."""
    compiled = program("embedding")
    loaded = initialized(compiled)
    table = np.array(loaded.variables()["embedding_1.table"])
    words = np.full((2, 3), 4, np.int32)
    run_program(loaded, "train_step", {**loaded.variables(), "word": words, "target": np.zeros(2, np.float32)}, 2)
    changed = (loaded.variables()["embedding_1.table"] != table).any(1)
    assert changed.tolist() == [i == 3 for i in range(9)]


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        ("softmax_cross_entropy(y, label + 1)", 4),
        ("softmax_cross_entropy(y, label - 1)", -1),
        ("one_hot_mean_squared_error(y, label + 1)", 4),
        ("accuracy(y, label + 1)", 4),
        ("top_k_accuracy(2)(y, label - 1)", -1),
    ],
)
def test_computed_labels(loss: str, value: int):
    """Of losses and of metrics, in training and evaluation."""
    text = f"""
model M(x: f32[B, 4]) {{ return x |> Dense(4) }}
fn own(y: f32[B, n], label: i32[B]) {{ return {loss} + mean(y) }}
train M {{ loss = own; optimizer = SGD(lr=0.1); batch = 4 }}
"""
    compiled = compile_text(text)
    loaded = initialized(compiled)
    label = np.array([1, 2, 3, 0], np.int32)
    inputs = {**loaded.variables(), "x": np.ones((4, 4), np.float32), "label": label}
    for graph in ("train_step", "evaluate"):
        seen = caught(lambda graph=graph: run_program(loaded, graph, inputs, 4))
        assert seen[:3] == (value, 4, 2 if value == 4 else 3)
        given = {v.name: np.array(inputs[v.name]) for v in compiled.module[graph].inputs}
        assert caught(lambda graph=graph, given=given: interpret(compiled.module[graph], given, 4)) == seen
