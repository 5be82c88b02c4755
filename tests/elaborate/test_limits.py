"""Programs that would never end, or are too large, are soon given up with a message; large valid ones are not."""

from __future__ import annotations

import time

import pytest

from compiler.elaborate import context, evaluator
from tests.elaborate.running import MARK, check_mistakes, mistakes, model, output, value_of
from tests.elaborate.running import examples as numbers

SECONDS = 20  # on a busy machine; most tests take far less


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch):
    """A tenth of the steps and of the operations, so that the tests are quick."""
    monkeypatch.setattr(evaluator, "MOST_STEPS", evaluator.MOST_STEPS // 10)
    monkeypatch.setattr(context, "LARGEST_GRAPH", context.LARGEST_GRAPH // 10)


ENDLESS = """
a long range: the range is too long
for i in §range(1000000000) { x = x + 1 }

nested loops: takes too long
for i in range(1000) { for j in range(1000) { for k in range(1000) { z = i } } }

empty loops: takes too long
for i in range(100000) { for j in range(100000) { } }

doubled lists: the result is too long
l = [1]
for i in range(100) { l = §l + l }

doubled strings: the result is too long
l = "a"
for i in range(100) { l = §l + l }

lists in lists: too long to compare
a = [1]; b = [1]
for i in range(60) { a = [a, a]; b = [b, b] }
if §a == b { x = x + 1 }

appended lists: takes too long
l = []
for i in range(100000) { l = append(l, i) }

two to the thirty calls: the model is too large
x = twice(30, x)

calls without end: forever calls itself too deeply
x = forever(x)

default values without end: Self calls itself too deeply
x = Self(x)

deep expressions: nest too deeply
x = deep(55, x)

a large product: the number is too large
z = §prod(range(1, 100))
""".strip().split("\n\n")
DECLARATIONS = f"""
fn twice(n, x) {{ if n == 0 {{ return x * 2 }}
  return twice(n - 1, x) + twice(n - 1, x) }}
fn forever(x) {{ return forever(x) }}
layer Self(f=Self())(x: f32[B, n]) {{ return x |> f }}
fn deep(n, x) {{ if n == 0 {{ return x }}
  return {"-(" * 45}deep(n - 1, x){")" * 45} }}
"""


@pytest.mark.parametrize("block", ENDLESS, ids=lambda block: block.partition(":")[0])
@pytest.mark.usefixtures("few_steps")
def test_it_ends(block: str):
    title, _, body = block.partition("\n")
    fragment = title.partition(": ")[2]
    began = time.perf_counter()
    program = DECLARATIONS + model(f"{body}\nreturn x")
    if MARK in program:
        check_mistakes(program, fragment)
    else:
        error = mistakes(program)
        assert fragment in str(error) and len(error.diagnostics) == 1
    assert time.perf_counter() - began < SECONDS


@pytest.mark.usefixtures("few_steps")
def test_the_limit_holds_for_all_models_together():
    endless = "for i in range(1000) { for j in range(1000) { } }\nreturn x"
    error = mistakes("".join(model(endless).replace("model M", f"model M{i}") for i in range(50)))
    messages = [d.message for d in error.diagnostics]
    assert messages == ["the file has several models", "the program takes too long to expand"]


def test_graphs_have_a_largest_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(context, "LARGEST_GRAPH", 100)
    assert "the model is too large" in str(mistakes(model("for i in range(200) { x = x + i }\nreturn x")))


def test_a_long_valid_program():
    """Two thousand operations in a row, built by a loop."""
    assert output(model("for i in range(1000) { x = x * 1 + 1 }\nreturn x"), numbers(1, 4))[0, 0] == 1000


def test_steps_that_emit_operations_are_not_limited(monkeypatch: pytest.MonkeyPatch):
    """Each operation makes up for the steps that led to it; only steps that emit none count."""
    monkeypatch.setattr(evaluator, "MOST_STEPS", 100)
    assert output(model("for i in range(100) { x = x * 1 + 1 }\nreturn x"), numbers(1, 4))[0, 0] == 100
    assert "takes too long" in str(mistakes(model("for i in range(100) { n = i * 1 + 1 }\nreturn x")))


def test_deep_valid_recursion():
    declarations = "fn down(n) { if n == 0 { return 0 } else if n == 1 { return 1 } else { return down(n - 1) } }"
    assert value_of("down(50)", declarations) == 1


def test_shared_parts_of_lists_cost_nothing():
    declarations = """
fn nested(n) { l = [1]
  for i in range(n) { l = [l, l] }
  return l }
fn same(l) { return l == l and len([l] + [l]) == 2 }
"""
    assert value_of("same(nested(1000))", declarations) is True
