"""What runs at compile time: numbers, strings, lists, functions as values, if and for."""

from __future__ import annotations

import math

import pytest

from compiler.elaborate.values import Builtin, Closure
from tests.elaborate.running import examples, model, output, value_of

VALUES = [
    # arithmetic
    ("1 + 2 * 3", 7),
    ("7 / 2", 3.5),
    ("-7 // 2", -4),
    ("-7 % 3", 2),
    ("2 ** 3 ** 2", 512),
    ("-2 ** 2", -4),
    ("2 ** -1", 0.5),
    ("4 // 2 == 2 and 1 < 2 and not 2 <= 1", True),
    ("1 == 1.0", True),
    ("true == 1", False),
    ("none == none", True),
    ("1 != 2 or error(3)", True),  # the right operand is not run
    ("false and error(3)", False),
    # functions of numbers are computed
    ("max(2, 3) + min(2, 3)", 5),
    ("exp(0) + sqrt(16) + abs(-2) + sign(-3) + floor(2.7)", 8.0),
    ("cos(pi)", -1.0),
    ("log(exp(2))", 2.0),
    ("erf(0) + tanh(0) + sin(0)", 0.0),
    ("int(2.9) + int(-2.9)", 0),
    ("float(2)", 2.0),
    ("clip(5, 0, 3)", 3),
    ("square(3)", 9),
    # strings
    ('"a" + "b"', "ab"),
    ('len("abc")', 3),
    ('"a" == "a" and "a" != "b"', True),
    # lists
    ("[1, 2] + [3]", [1, 2, 3]),
    ("append([1], 2)", [1, 2]),
    ("len([1, [2, 3]])", 2),
    ("range(3)", [0, 1, 2]),
    ("range(1, 3)", [1, 2]),
    ("range(-3)", []),
    ("[1, 2, 3][-1]", 3),
    ("[1, 2, 3][1:]", [2, 3]),
    ("[1, 2, 3][:-1]", [1, 2]),
    ("[1, 2, 3][::2]", [1, 3]),
    ("[1, 2, 3][::-1]", [3, 2, 1]),
    ("prod([2, 3, 4]) + prod([])", 25),
    ("prod([0.5, 4])", 2.0),
    ("[1, [2, 3]] == [1, [2, 3]]", True),
    ("[1, [2, 3]] == [1, [2, 4]]", False),
    ("[1] == 1", False),
    # tests of values
    ("is_number(1.5) and not is_number(true) and not is_number([1])", True),
    ("is_list([]) and not is_list(1)", True),
    ("is_none(none) and not is_none(0)", True),
    ("is_function(relu) and is_function(exp) and is_function(Dense) and not is_function(3)", True),
    ("relu == relu and relu != tanh", True),
    ("leaky_relu(0.1) == leaky_relu(0.1)", True),
    ("leaky_relu(0.1) == leaky_relu(0.2)", False),
    ("leaky_relu == leaky_relu(0.3)", False),
    # tensors have shapes at compile time
    ("shape(zeros([2, 3]))", [2, 3]),
    ("rank(zeros([2, 3])) + size(zeros([2, 3])) + size(zeros([2, 3]), axes=1)", 11),
    ("size(zeros([2, 3, 4]), axes=[0, -1])", 8),
    ('dtype(cast(zeros([2]), "i32"))', "i32"),
    ("shape(zeros([2, 3, 4])[1])", [3, 4]),
    ("shape(zeros([2, 3, 4])[:, 1:, ::2])", [2, 2, 2]),
    ("shape(zeros([2, 3, 4])[-1, :, -3:-1])", [3, 2]),
    ("shape(reshape(zeros([2, 6]), [-1, 4]))", [3, 4]),
    ("shape(concat(zeros([2, 1]), ones([2, 2])))", [2, 3]),
    ("shape(split(zeros([2, 6]), 3)[1])", [2, 2]),
    ("where(true, 1, 2)", 1),
]


@pytest.mark.parametrize(("expression", "expected"), VALUES, ids=[expression for expression, _ in VALUES])
def test_value(expression: str, expected: object):
    value = value_of(expression)
    assert value == pytest.approx(expected) if isinstance(expected, float) else value == expected
    assert isinstance(value, type(expected))


DECLARATIONS = """
fn twice(f, x) { return f(f(x)) }
fn add(by=1)(x) { return x + by }
fn pick(name) {
  if name == "add" { return add(10) } else if name == "square" { return square } else { return identity }
}
fn factorial(n) { if n == 0 { return 1 }
  return n * factorial(n - 1) }
fn total(items) {
  sum = 0
  for item in items { sum = sum + item }
  return sum
}
fn first_even(items) { for item in items { if item % 2 == 0 { return item } }
  return none }
fn pair_of(a, b=2, c=b + 1) { return a, b, c }
fn exchanged(a, b) { a, b = [b, a]
  return [a, b] }
fn counter() { n = 0
  for i in range(3) { for j in range(i) { n = n + j } }
  return n }
"""


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("twice(square, 3)", 81),
        ("twice(add(), 3)", 5),
        ("twice(add(by=5), 3)", 13),
        ('pick("add")(1)', 11),
        ('pick("square")(4)', 16),
        ('pick("")(4)', 4),
        ("factorial(10)", math.factorial(10)),
        ("total([1, 2, 3])", 6),
        ("total([])", 0),
        ("first_even([1, 3, 4, 6])", 4),
        ("first_even([1])", None),
        ("pair_of(1)", [1, 2, 3]),
        ("pair_of(1, c=9)", [1, 2, 9]),
        ("pair_of(b=5, a=4)", [4, 5, 6]),
        ("exchanged(1, 2)", [2, 1]),
        ("counter()", 1),
        ("3 |> square |> add(1)", 10),
    ],
)
def test_functions(expression: str, expected: object):
    assert value_of(expression, DECLARATIONS) == expected


def test_functions_are_values():
    assert isinstance(value_of("exp"), Builtin)
    dense = value_of("Dense(3, use_bias=false)")
    assert isinstance(dense, Closure) and dense.hyperparameters
    assert dense.hyperparameters["units"] == 3 and dense.hyperparameters["use_bias"] is False
    assert isinstance(dense.hyperparameters["init"], Closure)


def test_if_and_for_build_the_graph():
    body = """
      for factor in [2, 3] { x = x * factor }
      if shape(x)[1] == 4 { x = x + 1 } else { x = x - 1 }
      if training { x = x * 100 }
      return x * 1
    """
    x = examples(3, 4)
    assert output(model(body), x) == pytest.approx(x * 6 + 1)


def test_names_of_declarations_can_be_reused():
    body = "sum = 3\nrelu = tanh\nnone = 2\nreturn relu(x) * sum * none"
    assert output("fn exp(x) { return x }\n" + model(body), examples(2, 4)).shape == (2, 4)
    own = "fn relu(x: f32[...]) { return x * 10 }\n" + model("return x |> relu")
    assert output(own, examples(2, 4)) == pytest.approx(examples(2, 4) * 10)


def test_the_library_keeps_its_own_names():
    own = 'fn zeros(shape) { return error("mine") }\n' + model("return x |> Dense(2)")
    assert output(own, examples(2, 4)).shape == (2, 2)
