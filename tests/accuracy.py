"""Functions of the library against mpmath: values and gradients in f32 and f64, from denormals to the largest number.

Tested in tests/elaborate (NumPy) and tests/gpu (CuPy). The errors are in ulp: the distance to the next number of the
type at the exact result. If terms of a result cancel, as those of the derivative of silu near -1.28, the ulp is that of
the largest term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from runtime.program import LoadedProgram
from tests.programs import run_program

mp = pytest.importorskip("mpmath").mp

PROGRAM = """
fn f(x) {{ return {expression} }}
layer At(x: {dtype}[B, n]) {{
  param w: {dtype}[n] = zeros
  return f(x + cast(w, "{dtype}"))
}}
model M(x: {dtype}[B, {count}]) {{ return x |> At }}
fn total(y: {dtype}[B, {count}], weight: {dtype}[B, {count}]) {{ return cast(sum(y * weight), "f32") }}
train M {{ loss = total; optimizer = SGD(lr=1) }}
"""
LOSS_PROGRAM = """
layer At(x: f32[B, n]) {{
  param w: f32[n] = zeros
  return x + w
}}
{model}
train M {{ loss = {loss}; optimizer = SGD(lr=1) }}
"""
LOGITS = """fn logits(x) { return concat(x, 0 * x, -x) }
model M(x: f32[B, 1]) { return x |> At |> logits }"""
ONE = "model M(x: f32[B, 1]) { return x |> At }"
ROW_PROGRAM = """
layer At(x: f32[B, n]) {{
  param w: f32[n] = zeros
  return x + w
}}
fn f(x: f32[B, n]) {{ return {expression} }}
model M(x: f32[B, 3]) {{ return x |> At |> f }}
fn weighted(y: f32[B, k], weight: f32[B, k]) {{ return sum(y * weight) }}
fn labelled(y: f32[B, n], weight: f32[B, n]) {{ return softmax_cross_entropy(y, argmax(weight)) }}
train M {{ loss = {loss}; optimizer = SGD(lr=1) }}
"""
TYPES = {"f32": np.float32, "f64": np.float64}
Function = Callable[[Any], Any]
Start = Callable[[str], LoadedProgram]  # the initialized program of a text


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def normal_cdf(x: Any) -> Any:
    return mp.erfc(-max(min(x, 1000), -1000) / mp.sqrt(2)) / 2  # beyond, all types have 0 and 1


def normal_density(x: Any) -> Any:
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


@dataclass(frozen=True)
class Case:
    """A function with its derivative; `terms` are the largest terms of both if they cancel."""

    value: Function
    gradient: Function
    ulp: float  # the largest error allowed, in f32 and in f64
    terms: tuple[Function | None, Function | None] = (None, None)
    low: float = -np.inf


LEAST = 1e-7  # of a probability
PAIR = "logsumexp(concat(reshape(x, shape(x) + [1]), reshape(x / 2, shape(x) + [1])), axes=-1)"
CASES = {
    "exp(x)": Case(mp.exp, mp.exp, 3),
    "expm1(x)": Case(mp.expm1, mp.exp, 3),
    "log(x)": Case(mp.log, lambda x: 1 / x, 3, low=0),
    "log1p(x)": Case(mp.log1p, lambda x: 1 / (1 + x), 3, low=-1),
    "tanh(x)": Case(mp.tanh, lambda x: mp.sech(x) ** 2, 3, (None, lambda x: 1)),
    "sigmoid(x)": Case(sigmoid, lambda x: sigmoid(x) * sigmoid(-x), 6),
    "log(sigmoid(x))": Case(lambda x: -mp.log1p(mp.exp(-x)), lambda x: sigmoid(-x), 6, (lambda x: 1, None), low=-80),
    "log_sigmoid(x)": Case(lambda x: -mp.log1p(mp.exp(-x)), lambda x: sigmoid(-x), 6),
    "softplus(x)": Case(lambda x: mp.log1p(mp.exp(x)), sigmoid, 6),
    "silu(x)": Case(
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
        8,
        (None, lambda x: sigmoid(x) * max(1, abs(x) * sigmoid(-x))),
    ),
    "elu(x)": Case(lambda x: x if x > 0 else mp.expm1(x), lambda x: 1 if x > 0 else mp.exp(x), 3),
    "elu(0.5)(x)": Case(lambda x: x if x > 0 else mp.expm1(x) / 2, lambda x: 1 if x > 0 else mp.exp(x) / 2, 3),
    "erf(x)": Case(mp.erf, lambda x: 2 * mp.exp(-x * x) / mp.sqrt(mp.pi), 8),
    "normal_cdf(x)": Case(normal_cdf, normal_density, 8),
    "gelu(x)": Case(
        lambda x: x * normal_cdf(x),
        lambda x: normal_cdf(x) + x * normal_density(x),
        8,
        (None, lambda x: max(normal_cdf(x), abs(x) * normal_density(x))),
    ),
    PAIR: Case(
        lambda x: max(x, x / 2) + mp.log1p(mp.exp(-abs(x) / 2)),
        lambda x: (1 + sigmoid(x / 2)) / 2,
        6,
        (lambda x: 1, None),
    ),
}
LABELS = (0.0, 0.25, 1.0)
LOSSES: dict[str, Callable[[Any, Any], Any]] = {  # of x and a label: value, gradient, and a term that both contain
    "binary_cross_entropy_with_logits": lambda x, y: (
        (1 - y) * mp.log1p(mp.exp(x)) + y * mp.log1p(mp.exp(-x)),
        (1 - y) * sigmoid(x) - y * sigmoid(-x),
        0 if y in (0, 1) else y,
    ),
    "binary_cross_entropy": lambda p, y: (
        -y * mp.log(max(p, LEAST)) - (1 - y) * mp.log(max(1 - p, LEAST)),
        -y * (1 / p if p > LEAST else 0) + (1 - y) * (1 / (1 - p) if 0 < p < 1 - LEAST else 0),
        0 if y in (0, 1) else 1,
    ),
    "softmax_cross_entropy": lambda x, y: (
        mp.log(mp.exp(x) + 1 + mp.exp(-x)) - (x, 0, -x)[int(y)],
        ((mp.exp(x) - mp.exp(-x)) / (mp.exp(x) + 1 + mp.exp(-x))) - (1, 0, -1)[int(y)],
        1,
    ),
}


def points(dtype: str, low: float) -> np.ndarray:
    """From the largest number of a type over the smallest to the most negative one, and densely around zero."""
    info = np.finfo(TYPES[dtype])
    sizes = np.exp2(np.linspace(np.log2(float(info.smallest_subnormal)), np.log2(float(info.max)) * 0.9999, 300))
    x = np.concatenate(
        [sizes, -sizes, np.linspace(-12, 12, 601), np.linspace(-760, 760, 381), [0, info.max, -info.max]]
    )
    x = np.unique(x.astype(TYPES[dtype]))
    return x[x > low]


@cache
def exact(expression: str, dtype: str, part: int) -> tuple[list[Any], list[Any]]:
    """The results at all points, and the numbers whose ulp is the unit."""
    case = CASES[expression]
    function, terms = (case.value, case.gradient)[part], case.terms[part]
    x = [mp.mpf(float(each)) for each in points(dtype, case.low)]
    with mp.workprec(200):
        results = [function(each) for each in x]
        return results, [max(abs(y), terms(each)) if terms else abs(y) for each, y in zip(x, results, strict=True)]


@np.errstate(all="ignore")
def found(start: Start, expression: str, dtype: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and gradients of the generated code: one step of SGD from 0 with a rate of 1 leaves -gradient."""
    program = start(PROGRAM.format(expression=expression, dtype=dtype, count=len(x)))
    inputs = {"x": x[None], "weight": np.ones_like(x)[None]}
    value = run_program(program, "predict", inputs, 1)["output"][0]
    return value, -run_program(program, "train_step", inputs, 1)["at_1.w"]


def largest_error(results: np.ndarray, expected: list[Any], units: list[Any], x: np.ndarray) -> tuple[float, float]:
    """In ulp, and where; beyond the range of the type, infinity is exact."""
    info, worst = np.finfo(results.dtype), (0.0, 0.0)
    for y, right, unit, place in zip(results, expected, units, x, strict=True):
        if abs(right) > float(info.max):
            assert np.isinf(y) and (y > 0) == (right > 0), (place, y, right)
            continue
        nearest = np.asarray(float(min(unit, float(info.max))), results.dtype)
        with mp.workprec(200):
            error = abs(mp.mpf(float(y)) - right) / mp.mpf(float(np.spacing(nearest)))
        assert mp.isfinite(error), (place, y, right)
        worst = max(worst, (float(error), float(place)))
    return worst


def check_accuracy(start: Start, expression: str, dtype: str) -> None:
    case = CASES[expression]
    x = points(dtype, case.low)
    for part, results in enumerate(found(start, expression, dtype, x)):
        error, place = largest_error(results, *exact(expression, dtype, part), x)
        name, part_name = expression.partition("(concat")[0], ("value", "gradient")[part]
        print(f"{name:20} {dtype} {part_name:8} {error:6.2f} ulp at {place:g}")
        assert error <= case.ulp, f"{part_name}: {error} ulp at {place}"


@np.errstate(all="ignore")
def check_loss(start: Start, loss: str) -> None:
    """In f32, as losses are; on one example at a time, since they are means."""
    whole = loss == "softmax_cross_entropy"
    program = start(LOSS_PROGRAM.format(loss=loss, model=LOGITS if whole else ONE))
    low, high = (0.0, 1.0) if loss == "binary_cross_entropy" else (-1e38, 1e38) if not whole else (-1e4, 1e4)
    x = points("f32", -np.inf)
    x = np.append(x[(x >= low) & (x <= high)], np.linspace(0, 1, 301, dtype=np.float32))
    for label in (0, 1, 2) if whole else LABELS:
        target = np.array([label], np.int32) if whole else np.array([[label]], np.float32)
        results = []
        for each in x:
            program.inputs("variables", 1)["at_1.w"][...] = 0
            after = run_program(program, "train_step", {"x": np.array([[each]]), "label": target}, 1)
            results.append((after["loss"], -after["at_1.w"][0]))
        with mp.workprec(300):
            expected = [LOSSES[loss](mp.mpf(float(each)), label) for each in x]
        for part, name in enumerate(("value", "gradient")):
            right = [each[part] for each in expected]
            units = [max(abs(each[part]), each[2]) for each in expected]
            error, place = largest_error(np.array([each[part] for each in results], np.float32), right, units, x)
            print(f"{loss} of {label}, f32 {name:8} {error:6.2f} ulp at {place:g}")
            assert error <= 8, f"{name}: {error} ulp at {place} for label {label}"


INF, NAN = np.inf, np.nan
SPECIAL = {  # operands, results and gradients: those of PyTorch's formulas
    "sigmoid(x)": ([-INF, 0, INF, NAN], [0, 0.5, 1, NAN], [0, 0.25, 0, NAN]),
    "log_sigmoid(x)": ([-INF, -20, 0, INF, NAN], [-INF, -20, np.log(0.5), 0, NAN], [1, 1, 0.5, 0, NAN]),
    "log(sigmoid(x))": ([-20], [-20], [1]),
    "softplus(x)": ([-INF, -17, 0, INF, NAN], [0, 4.1399375e-8, np.log(2), INF, NAN], [0, 4.1399375e-8, 0.5, 1, NAN]),
    "silu(x)": ([-INF, -19.9, 0, INF, NAN], [NAN, -4.533077e-8, 0, INF, NAN], [NAN, -4.305284e-8, 0.5, NAN, NAN]),
    "elu(x)": ([-INF, -1e-8, 0, INF, NAN], [-1, -1e-8, 0, INF, NAN], [0, 1, 1, 1, NAN]),
    "expm1(x)": ([-INF, -1e-8, 0, INF, NAN], [-1, -1e-8, 0, INF, NAN], [0, 1, 1, INF, NAN]),
    "log1p(x)": ([-2, -1, -1e-8, 0, INF, NAN], [NAN, -INF, -1e-8, 0, INF, NAN], [-1, INF, 1, 1, 0, NAN]),
    "erf(x)": (
        [-INF, -5, 0, 5, INF, NAN],
        [-1, -1, 0, 1, 1, NAN],
        [0, 1.5670866e-11, 2 / np.sqrt(np.pi)] + [1.5670866e-11, 0, NAN],
    ),
    "normal_cdf(x)": ([-INF, 0, INF, NAN], [0, 0.5, 1, NAN], [0, 1 / np.sqrt(2 * np.pi), 0, NAN]),
    "gelu(x)": ([-INF, -1e10, 0, INF, NAN], [NAN, -0.0, 0, INF, NAN], [NAN, 0, 0.5, NAN, NAN]),
    PAIR: ([-INF, INF, NAN], [-INF, INF, NAN], None),
}


def check_special_values(start: Start, expression: str, dtype: str) -> None:
    x, expected, gradients = SPECIAL[expression]
    results = found(start, expression, dtype, np.array(x, TYPES[dtype]))
    for right, result in zip((expected, gradients), results, strict=True):
        if right is not None:
            np.testing.assert_allclose(result, right, rtol=2e-6, atol=0)


# Of PyTorch 2.13, for each row: the result, and the gradient of its product with 1, 2, 3 or of the loss for the label.
ROWS: dict[str, list[tuple[list[float], list[float], list[float]]]] = {
    "softmax(x)": [
        ([1, 2, -INF], [0.26894143, 0.7310586, 0], [-0.19661194, 0.19661194, 0]),
        ([-INF, 2, 1], [0, 0.7310586, 0.26894143], [0, -0.19661194, 0.19661194]),
        ([-INF, -INF, 0.5], [0, 0, 1], [0, 0, 0]),
        ([-INF, -INF, -INF], [NAN] * 3, [NAN] * 3),
        ([1, INF, 2], [NAN] * 3, [NAN] * 3),
        ([1, NAN, 2], [NAN] * 3, [NAN] * 3),
    ],
    "softmax(where(x > 0, x, log(zeros([3]))))": [  # a mask
        ([1, 2, -3], [0.26894143, 0.7310586, 0], [-0.19661194, 0.19661194, 0]),
        ([-1, -2, -3], [NAN] * 3, [0, 0, 0]),
    ],
    'softmax(x + log(cast(x > 0, "f32")))': [([1, 2, -3], [0.26894143, 0.7310586, 0], [-0.19661194, 0.19661194, 0])],
    "log_softmax(x)": [
        ([1, 2, -INF], [-1.3132616, -0.31326166, -INF], [-0.6136486, -2.3863516, 3]),
        ([-INF, 2, 1], [-INF, -0.31326166, -1.3132616], [1, -2.3863516, 1.3863513]),
        ([-INF, -INF, 0.5], [-INF, -INF, 0], [1, 2, -3]),
        ([-INF, -INF, -INF], [NAN] * 3, [NAN] * 3),
        ([1, INF, 2], [NAN] * 3, [NAN] * 3),
        ([1, NAN, 2], [NAN] * 3, [NAN] * 3),
    ],
    "logsumexp(x, axes=-1, keepdims=true)": [
        ([1, 2, -INF], [2.3132617], [0.26894143, 0.7310586, 0]),
        ([-INF, -INF, 0.5], [0.5], [0, 0, 1]),
        ([-INF, -INF, -INF], [-INF], [NAN] * 3),
        ([1, INF, 2], [INF], [0, NAN, 0]),
        ([INF, -INF, 1], [INF], [NAN, 0, 0]),
        ([1, NAN, 2], [NAN], [NAN] * 3),
    ],
}
LABELLED: list[tuple[list[float], int, float, list[float]]] = [
    ([1, 2, -INF], 0, 1.3132616, [-0.7310586, 0.7310586, 0]),
    ([1, 2, -INF], 1, 0.31326166, [0.26894143, -0.26894143, 0]),
    ([1, 2, -INF], 2, INF, [0.26894143, 0.7310586, -1]),
    ([-INF, 2, 1], 1, 0.31326166, [0, -0.26894143, 0.26894143]),
    ([-INF, -INF, 0.5], 2, 0, [0, 0, 0]),
    ([-INF, -INF, 0.5], 0, INF, [-1, 0, 1]),
    ([-INF, -INF, -INF], 0, NAN, [NAN] * 3),
    ([1, INF, 2], 0, NAN, [NAN] * 3),
    ([1, INF, 2], 1, NAN, [NAN] * 3),
    ([1, NAN, 2], 0, NAN, [NAN] * 3),
]


@np.errstate(all="ignore")
def check_rows(start: Start, expression: str) -> None:
    program = start(ROW_PROGRAM.format(expression=expression, loss="weighted"))
    for x, value, gradient in ROWS[expression]:
        program.inputs("variables", 1)["at_1.w"][...] = 0
        inputs = {"x": np.array([x]), "weight": np.array([[1, 2, 3][: len(value)]])}
        np.testing.assert_allclose(run_program(program, "predict", inputs, 1)["output"][0], value, rtol=1e-6)
        found = -run_program(program, "train_step", inputs, 1)["at_1.w"]
        np.testing.assert_allclose(found, gradient, rtol=1e-6, atol=1e-7, err_msg=str(x))


@np.errstate(all="ignore")
def check_labelled_rows(start: Start) -> None:
    program = start(ROW_PROGRAM.format(expression="x", loss="labelled"))
    for x, label, loss, gradient in LABELLED:
        program.inputs("variables", 1)["at_1.w"][...] = 0
        inputs = {"x": np.array([x]), "weight": np.eye(3)[label][None]}
        found = run_program(program, "train_step", inputs, 1)
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-6, err_msg=f"{x}, {label}")
        np.testing.assert_allclose(-found["at_1.w"], gradient, rtol=1e-6, atol=1e-7, err_msg=f"{x}, {label}")
