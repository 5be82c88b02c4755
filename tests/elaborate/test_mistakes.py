"""Every mistake gives one clear diagnostic at the author's own line, and all mistakes of a file are found.

The tables are in mistakes/*.txt: § precedes each place that a diagnostic points at, ! a fragment of the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compiler.diagnostics import Diagnostics, UserError
from compiler.elaborate.library import with_imports
from compiler.elaborate.program import check_all
from compiler.language.parser import parse
from tests.elaborate.running import MARK, check_mistakes, mistakes, model

TABLES = Path(__file__).resolve().parent / "mistakes"
INPUTS = "x: f32[B, 4], y: f32[B, 5], k: i32[B], image: f32[B, 28, 28, 1], s: f32[B, 6, 4]"
# Most tables contain bodies of a model; these contain something else.
WRAPPED = {
    "declarations": "{}",
    "cells": "{}\nmodel M(x: f32[B, 6, 4]) {{ return scan(C, x) }}",
    "training": "model M(x: f32[B, 4]) {{ return x |> Dense(3) }}\ntrain M {{ {} }}\n"
    + (TABLES / "training.nn").read_text().replace("{", "{{").replace("}", "}}"),
}


def cases() -> Iterator[object]:
    for path in sorted(TABLES.glob("*.txt")):
        wrapper = WRAPPED.get(path.stem, f"model M({INPUTS}) {{{{ {{}} }}}}")
        for block in path.read_text().split("\n\n")[1:]:
            lines = block.strip("\n").split("\n")
            source = "\n".join(line for line in lines if not line.startswith("  ! "))
            fragments = [line[4:] for line in lines if line.startswith("  ! ")]
            name = f"{path.stem}: {source.replace(MARK, '')[:70]}"
            yield pytest.param(wrapper.format(source), fragments, id=name)


@pytest.mark.parametrize(("program", "fragments"), [*cases()])
def test_a_mistake(program: str, fragments: list[str]):
    assert fragments
    check_mistakes(program, *fragments)


def test_an_empty_file():
    check_mistakes("§", "there is no model in this file", "found: no declaration")


def test_required_entries_of_a_train_block():
    program = model("return x |> Dense(3)")
    error = mistakes(program + "train M { epochs = 3 }")
    assert [d.message for d in error.diagnostics] == ["train M has no loss", "train M has no optimizer"]
    check_mistakes(program + "train §M { loss = mean_squared_error }", "train M has no optimizer", "found: loss")
    check_mistakes(program + "train §M { optimizer = SGD }", "train M has no loss", "found: optimizer")


def test_second_and_unknown_train_blocks():
    block = "{ loss = mean_squared_error; optimizer = SGD }"
    check_mistakes(model("return x |> Dense(3)") + f"train M {block}\ntrain §M {block}", "a second train block for M")
    check_mistakes(model("return x |> Dense(3)") + f"train §N {block}", "there is no model N", "expected: M")


@pytest.mark.parametrize(
    ("optimizer", "fragment"),
    [
        ("O(p, g, step) { return p - g |> §Dense(3) }", "a layer cannot run inside an optimizer"),
        ("O(p, g, step) { state v = §g; return v }", "does not exist yet"),
        ('O(p, g, step) { return p - §error("never") }', "never"),
        ("O(p, g, step) { §param w: f32[] = 0; return p }", "a param cannot be declared here"),
    ],
)
def test_mistakes_inside_optimizers(optimizer: str, fragment: str):
    program = f"optimizer {optimizer}\n" + model("return x |> Dense(3)")
    program += "train M { loss = mean_squared_error; optimizer = O }"
    check_mistakes(program, fragment, "in O, used here")


@pytest.mark.parametrize(
    ("name", "fragment"), [("x", "the type of the model's input x"), ("w", "another name"), ("step", "another name")]
)
def test_names_of_targets(name: str, fragment: str):
    program = f"fn l(a: f32[B, n], §{name}: f32[B]) {{ return mean(a) }}\n" + model("param w: f32[4] = 1\nreturn x * w")
    check_mistakes(
        program + "train M { loss = l; optimizer = SGD }", f"the target {name} cannot have this name", fragment
    )


@pytest.mark.parametrize(
    ("target", "fragment"),
    [("t: f32[B, §m]", "the size m of t is not known"), ("§t", "t needs a type"), ("t: §f32[3]", "not the batch")],
)
def test_types_of_targets(target: str, fragment: str):
    program = f"fn l(a: f32[B, n], {target}) {{ return mean(a) }}\n" + model("return x |> Dense(3)")
    check_mistakes(program + "train M { loss = l; optimizer = SGD }", fragment)


def test_a_metric_cannot_have_the_name_of_a_variable():
    program = "fn w(a: f32[B, n]) { return mean(a) }\n" + model("param w: f32[4] = 1\nreturn x * w")
    program += "train M { loss = mean_squared_error; optimizer = SGD; metrics = [§w] }"
    check_mistakes(program, "the metric w cannot have this name")


def test_the_history_of_a_shape():
    """The error is three layers after the cause. Steps that keep the shape are left out, the cause comes first."""
    program = """\
model M(image: f32[B, 28, 28, 1]) {
  y = image
    |> Conv2D(24, 5)
    |> BatchNorm
    |> relu
    |> Dropout(0.5)
  return y |> RNN(LSTM(8))
}
"""
    (diagnostic,) = mistakes(program).diagnostics
    assert diagnostic.span and diagnostic.span.line == 7
    assert (diagnostic.expected, diagnostic.found) == ("f32[B, T, n]", "f32[B,24,24,24]")
    assert [(note.message, note.span and note.span.line) for note in diagnostic.notes] == [
        ("f32[B,24,24,24] from Conv2D", 3),
        ("f32[B,28,28,1] from the input image", 1),
    ]


def test_histories_follow_operators_lists_and_scans():
    body = "a, b = split(s @ ones([4, 6]), 2)\nc = scan(LSTM(2), a)[:, 0]\nreturn c + x"
    (diagnostic,) = mistakes(model(body, "x: f32[B, 4], s: f32[B, 5, 4]")).diagnostics
    assert [note.message for note in diagnostic.notes] == [
        "f32[B,2] from an index",
        "f32[B,5,2] from LSTM",
        "f32[B,5,3] from split",
        "f32[B,5,6] from @",
        "f32[B,5,4] from the input s",
        "f32[B,4] from the input x",
    ]


def test_all_mistakes_of_a_file_once_each():
    check_mistakes(
        """\
§layer Block(n)(x: f32[B, c]) {
  y = x |> §Dence(n)
  return y |> Dense(n) |> relu |> tanh
}
model First(x: f32[B, 4]) {
  a = x |> Block(3) |> Block(4)
  for i in range(3) { x = x |> §Dense("wide") }
  b = x + a * 2
  return b |> Dense(3) |> §Softmax
}
model Second(x: f32[B, 4]) { return x |> Dense(4) |> §Conv2D(1, 2) |> Flatten }
train First { loss = mean_squared_error; optimizer = SGD; §epoch = 2 }
train §Second { loss = mean_squared_error; §optimiser = SGD; batch = §"big" }
""",
        "the file has several models",
        "Dence",
        "units must be",
        "Softmax",
        "key epoch",
        "key optimiser",
    )


def test_statements_lost_to_syntax_errors_cause_no_more_mistakes():
    program = """\
layer L()(x: f32[B, n]) {
  y = x |> Dense(3
  z = lost
  return y + z + Dence(3)(x)
}
model M(x: f32[B, 4]) { return x |> L |> tanh }
train M { loss = mean_squared_error
  optimizer = = SGD
  epochs = 3
}
"""
    diagnostics = Diagnostics()
    check_all(with_imports(parse(program, "test.nn", diagnostics), diagnostics), diagnostics)
    with pytest.raises(UserError) as raised:
        diagnostics.raise_if_any()
    found = [(d.span and d.span.line, d.message.split(";")[0]) for d in raised.value.diagnostics]
    assert {message for _, message in found} <= {"syntax error", "unknown layer Dence"}
    assert [line for line, message in found if message == "syntax error"] == [3, 8]
