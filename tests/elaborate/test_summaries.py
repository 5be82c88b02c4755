"""The layer tables of the five models, row by row; which calls get a row."""

from __future__ import annotations

import pytest

from compiler.reports.summary import format_summary, rows, totals
from tests.elaborate.running import model
from tests.programs import compile_text, compiled_model

POOLED, FLAT = "(None, 4, 4, 48)", "(None, 768)"
TABLES = {
    "softmax": (
        [("dense_1 (Dense)", "(None, 10)", 7850)],
        (7850, 0),
    ),
    "mlp": (
        [
            ("dense_1 (Dense)", "(None, 512)", 401920),
            ("dense_2 (Dense)", "(None, 512)", 262656),
            ("dropout_1 (Dropout)", "(None, 512)", 0),
            ("dense_3 (Dense)", "(None, 10)", 5130),
        ],
        (669706, 0),
    ),
    "cnn": (
        [
            ("conv_block_1.conv2d_1 (Conv2D)", "(None, 24, 24, 24)", 624),
            ("conv_block_1.batch_norm_1 (BatchNorm)", "(None, 24, 24, 24)", 96),
            ("relu", "(None, 24, 24, 24)", 0),
            ("conv_block_1.max_pool2d_1 (MaxPool2D)", "(None, 12, 12, 24)", 0),
            ("conv_block_2.conv2d_1 (Conv2D)", "(None, 8, 8, 48)", 28848),
            ("conv_block_2.batch_norm_1 (BatchNorm)", "(None, 8, 8, 48)", 192),
            ("relu", "(None, 8, 8, 48)", 0),
            ("conv_block_2.max_pool2d_1 (MaxPool2D)", POOLED, 0),
            ("flatten_1 (Flatten)", FLAT, 0),
            ("dense_1 (Dense)", "(None, 512)", 393728),
            ("batch_norm_1 (BatchNorm)", "(None, 512)", 2048),
            ("relu", "(None, 512)", 0),
            ("dense_2 (Dense)", "(None, 10)", 5130),
        ],
        (429498, 1168),
    ),
    "separable_cnn": (
        [
            ("conv2d_1 (Conv2D)", "(None, 24, 24, 24)", 624),
            ("max_pool2d_1 (MaxPool2D)", "(None, 12, 12, 24)", 0),
            ("depthwise_conv2d_1 (DepthwiseConv2D)", "(None, 8, 8, 24)", 624),
            ("conv2d_2 (Conv2D)", "(None, 8, 8, 48)", 1200),
            ("max_pool2d_2 (MaxPool2D)", POOLED, 0),
            ("flatten_1 (Flatten)", FLAT, 0),
            ("dense_1 (Dense)", "(None, 512)", 393728),
            ("dense_2 (Dense)", "(None, 10)", 5130),
        ],
        (401306, 0),
    ),
    "bilstm": (
        [
            ("bidirectional_1 (Bidirectional)", "(None, 256)", 160768),
            ("dense_1 (Dense)", "(None, 10)", 2570),
        ],
        (163338, 0),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_five_models(name: str):
    wanted_rows, wanted_totals = TABLES[name]
    elaborated = compiled_model(name).model
    assert [(row.layer, row.shape, row.parameters) for row in rows(elaborated)] == wanted_rows
    assert totals(elaborated) == wanted_totals


def test_rows_of_user_defined_layers():
    program = """
layer Scaled(n)(x: f32[B, c]) {
  param scale: f32[c] = 1
  y = square(x * scale)
  return y |> Dense(n) |> half |> tanh
}
fn half(x: f32[...]) { return x / 2 }
cell Leaky(n)(x: f32[B, c]) {
  param w: f32[c, n] = normal
  carry h: f32[B, n] = 0
  h = 0.5 * h + x @ w
  return h
}
""" + model("y = scan(Leaky(3), x) |> last\nparam shift: f32[2] = 0\nreturn Scaled(2)(y) + shift", "x: f32[B, 5, 4]")
    found = [(row.layer, row.shape, row.parameters) for row in rows(compile_text(program).model)]
    assert found == [
        ("leaky_1 (Leaky)", "(None, 5, 3)", 12),
        ("last", "(None, 3)", 0),
        ("scaled_1.dense_1 (Dense)", "(None, 2)", 8),
        ("half", "(None, 2)", 0),
        ("tanh", "(None, 2)", 0),
        ("scaled_1 (Scaled)", "(None, 2)", 3),
    ]


def test_the_table():
    assert (
        format_summary(compiled_model("bilstm").model)
        == """\
Model BiLSTM
───────────────────────────────────────────────────────────
Layer                            Output shape    Parameters
───────────────────────────────────────────────────────────
image (input)                    (None, 28, 28)           0
bidirectional_1 (Bidirectional)  (None, 256)        160,768
dense_1 (Dense)                  (None, 10)           2,570
───────────────────────────────────────────────────────────
Total parameters: 163,338
Trainable: 163,338
Not trainable: 0"""
    )
