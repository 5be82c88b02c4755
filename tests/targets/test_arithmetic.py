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
    x, y = float(np.float32(x)), float(np.float32(y))
    found = output(model(f"return x {operator} y", "x: f32[B], y: f32[B]"), np.float32([x]), np.float32([y]))
    assert found[0] == pytest.approx(value_of(f"{x:.60f} {operator} {y:.60f}"), rel=1e-6, abs=0)
