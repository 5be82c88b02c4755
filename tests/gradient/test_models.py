"""The gradients of whole models, through convolution, pooling, normalisation and scans, along random directions.

Float64 in the interpreter: (L(p + e d) - L(p - e d)) / 2e against the sum of gradient times direction. The gradient is
taken from a step of plain gradient descent with lr = 1: the old parameters minus the new ones.
"""

from __future__ import annotations

import numpy as np
import pytest

from compiler.driver import compile_tree, load_tree
from compiler.ir.interpreter import interpret
from tests.programs import BATCH, MODELS, ROOT, compile_text, initialized, values_for

EPSILON = 1e-6  # along a direction of length 1: small enough to meet no kink of relu or pooling

OTHERS = {
    "gru with layer norm": "return x |> RNN(GRU(4), return_sequences=true) |> LayerNorm |> RNN(SimpleRNN(3)) |> head",
    "embedding": "return gather_rows(x) |> head",
    "separable": 'return reshape(x, [B, 4, 5, 1]) |> SeparableConv2D(3, 2, padding="same") |> AvgPool2D |> head',
    "grouped": "return reshape(x, [B, 2, 5, 2]) |> Conv2D(4, 2, groups=2, dilation=[1, 2]) |> gelu |> head",
}
PROGRAM = """
layer Rows(units)(x: f32[B, 4, 5]) {{
  param table: f32[7, units] = normal
  index = cast(floor(min(abs(x[:, 0, 0]) * 5, 6)), "i32")
  return gather(table, index)
}}
fn head(x: f32[...]) {{ return x |> Flatten |> Dense(3) }}
fn gather_rows(x: f32[...]) {{ return Rows(4)(x) }}
model M(x: f32[B, 4, 5]) {{ {body} }}
train M {{ loss = softmax_cross_entropy; optimizer = SGD(lr=1) }}
"""


def check(compiled) -> None:
    step = compiled.module["train_step"]
    variables = {
        k: np.array(v, np.float64 if v.dtype.kind == "f" else v.dtype)
        for k, v in initialized(compiled).variables().items()
    }
    inputs = values_for(step, BATCH) | variables
    inputs |= {v.name: inputs[v.name] % 3 for v in step.of_kind("target")}
    after = interpret(step, inputs, BATCH)
    generator = np.random.default_rng(0)
    directions = {v.name: generator.normal(size=inputs[v.name].shape) for v in step.of_kind("param")}
    length = np.sqrt(sum(float((d * d).sum()) for d in directions.values()))
    directions = {name: d / length for name, d in directions.items()}
    slope = sum(float(((inputs[n] - after[n]) * d).sum()) for n, d in directions.items())
    ends = [
        float(interpret(step, inputs | {n: inputs[n] + move * d for n, d in directions.items()}, BATCH)["loss"])
        for move in (EPSILON, -EPSILON)
    ]
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * EPSILON), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("model", MODELS)
def test_model(model: str):
    tree = load_tree(ROOT / "models" / f"{model}.nn", [("optimizer", "SGD(lr=1)")])
    check(compile_tree(tree))


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers(name: str):
    check(compile_text(PROGRAM.format(body=OTHERS[name])))
