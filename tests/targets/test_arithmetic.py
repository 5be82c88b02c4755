"""Special cases of arithmetic: the interpreter, NumPy code and numbers at compile time agree with Python."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.interpreter import interpret
from tests.arithmetic import CASES, QUOTIENTS, Case
from tests.elaborate.running import model, output, value_of
from tests.programs import run_graph

NAMED = [pytest.param(case, id=case.name) for case in CASES]


@pytest.mark.parametrize("case", NAMED)
@np.errstate(all="ignore")
def test_interpreter(case: Case):
    case.check(interpret(case.graph(), case.inputs())["y"])


@pytest.mark.parametrize("case", NAMED)
@np.errstate(all="ignore")
def test_numpy(case: Case):
    case.check(run_graph(case.graph(), case.inputs(), 1, poison=True)["y"])


@pytest.mark.parametrize("operator", ["//", "%"])
@pytest.mark.parametrize(("x", "y"), [pair for pair in QUOTIENTS if np.isfinite(pair[1])])
def test_numbers_and_tensors_agree(operator: str, x: float, y: float):
    """Within float32: the same expression of numbers at compile time, and of tensors at run time."""
    xs, ys = np.array([x], np.float32), np.array([y], np.float32)
    x, y = float(xs[0]), float(ys[0])
    found = output(model(f"return x {operator} y", "x: f32[B], y: f32[B]"), xs, ys)
    assert found[0] == pytest.approx(value_of(f"{x:.60f} {operator} {y:.60f}"), rel=1e-6, abs=0)


@pytest.mark.parametrize("operator", ["//", "%"])
@pytest.mark.parametrize("divisor", ["n", "0"])
@np.errstate(all="ignore")
def test_whole_numbers_divided_by_zero_in_a_model(operator: str, divisor: str):
    program = model(f'return cast(7 * (n + 1) {operator} {divisor}, "f32") + 0 * x', "x: f32[B], n: i32[B]")
    assert output(program, np.ones(2, np.float32), np.zeros(2, np.int32)).tolist() == [0, 0]


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 6), (2, 3 / 6), (3, 4 / 6), (4, 4 / 6)])
@np.errstate(all="ignore")
def test_top_k_accuracy_does_not_count_nan(k: int, share: float):
    nan = np.nan
    logits = np.array([[3, 2, 1], [1, 2, 3], [nan, 2, 1], [2, nan, 1], [nan, nan, nan], [2, 3, 1]], np.float32)
    labels = np.array([0, 0, 0, 0, 0, 0], np.int32)
    program = model(f"return zeros([B]) + top_k_accuracy({k})(x, n)", "x: f32[B, 3], n: i32[B]")
    assert output(program, logits, labels) == pytest.approx(np.full(6, share))


@pytest.mark.parametrize("shape", [(128, 64, 64, 3), (128, 512), (3, 1_000_000), (3, 300_000, 3), (128,)])
def test_means_of_equal_numbers(shape: tuple[int, ...]):
    x, tenth = np.full(shape, 0.1, np.float32), float(np.float32(0.1))
    inputs = f"x: f32[{', '.join(['B', *map(str, shape[1:])])}]"
    axes = list(range(max(len(shape) - 1, 1)))
    found = output(model(f"return zeros([B]) + mean(mean(x, axes={axes})) + 0 * mean(x)", inputs), x)
    assert found[0] == pytest.approx(tenth, rel=1e-6)
    found = output(model("return zeros([B]) + mean(x * x)", inputs), x)
    assert found[0] == pytest.approx(tenth**2, rel=1e-6)


@pytest.mark.parametrize(
    ("body", "x", "expected"),
    [
        ("x / 1e-39", [1e-39, 2e-39, 0, -1e-38], [1, 2, 0, -10]),
        ("x / s", [1e-39, 2e-39, 0, -1e-38], [1, 2, 0, -10]),
        ("x / 2e38", [1e38, 2e38, 3e38, -1e38], [0.5, 1, 1.5, -0.5]),
        ("x * 1e30 * 1e30", [1e-35, -1e-34, 0, 1e-30], [1e25, -1e26, 0, 1e30]),
        ("x * 1e-30 * 1e-30", [1e35, -1e34, 0, 1e30], [1e-25, -1e-26, 0, 1e-30]),
        ("x / (sqrt(sum(x * x, axes=1, keepdims=true)) + 1e-39)", [0, 0, 0, 0], [0, 0, 0, 0]),
        ("x / sqrt(sum(x * x, axes=1, keepdims=true))", [3, 4, 0, 0], [0.6, 0.8, 0, 0]),
        ("x + 12582912 - 12582912", [0.4, 0.6, -1.7, 2.5], [0, 1, -2, 2]),
        ("12582912 + x - 12582912", [0.4, 0.6, -1.7, 2.5], [0, 1, -2, 2]),
        ("x + c - c", [0.4, 0.6, -1.7, 2.5], [0, 1, -2, 2]),
        ("c + x - c", [0.4, 0.6, -1.7, 2.5], [0, 1, -2, 2]),
        ("x + (s + 12582912 + 0 * sum(x)) - (s + 12582912 + 0 * sum(x))", [0.4, 0.6, -1.7, 2.5], [0, 1, -2, 2]),
        ("sum(x + c - c, axes=1, keepdims=true) + 0 * x", [0.4, 0.6, 1.7, 2.5], [5, 5, 5, 5]),
        ("sum(x * 0.1, axes=1, keepdims=true) + 0 * x", [3e38, 3e38, 1e38, 1e38], [8e37] * 4),
        ("x + x - 2 * x", [1e38, 2, 3, -4], [0, 0, 0, 0]),
        ("(0 - x) + y + y", [3e38, 1, -2, -3e38], [3e38, 1, -2, -3e38]),
    ],
)
def test_expressions_are_computed_as_written(body: str, x: list[float], expected: list[float]):
    values = np.array([x], np.float32)
    program = model(f"y = 1 * x\ns = zeros([]) + 1e-39\nc = zeros([4]) + 12582912\nreturn {body}")
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(output(program, values)[0], np.array(expected, np.float32), rtol=1e-6)
