"""Numbers that go wrong without planted errors: the op to blame, its line and phase; and harmless infinities."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from compiler.driver import Compilation
from compiler.numerics.blame import Blame, find
from compiler.numerics.replay import places_of
from compiler.numerics.report import phase_of, reason_of
from compiler.numerics.runs import run_generated, run_in_float64
from runtime.datasets.dataset import Dataset, Split
from runtime.program import LoadedProgram
from runtime.training.captures import Capture
from runtime.training.numerics import Guard, all_finite
from runtime.training.progress import Reporter
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import train
from tests.numerics.planting import captured
from tests.programs import compile_text

BATCH, EXAMPLES, LINE = 4, 12, 5
TEXT = """\
model M(x: f32[B, 2]) {{
  param w: f32[2] = ones
  {state}
  h = x * w
  y = {expression}
  return y
}}

optimizer Divided(lr)(p, g, step) {{ return p - lr * g / (p - 1) }}

train M {{ loss = mean_squared_error; optimizer = {optimizer}; batch = 4 }}
"""
# An expression of h = [1, 2] w -> the op to blame, and the stated cause.
FORWARD = {
    "log(h - 3)": ("log", "the logarithm of a negative number"),
    "log(h - 1)": ("log", "the logarithm of zero"),
    "x / (h - 1)": ("div", "a division by zero, or overflow"),
    "sqrt(h - 3)": ("sqrt", "the square root of a negative number"),
    "(h - 3) ** (h - 0.5)": ("pow", ""),
    "exp(h * 1000)": ("exp", "overflow: beyond the range of the type"),
    "(h - 1) * exp(h * 1000)": ("exp", "overflow: beyond the range of the type"),
    "h * 3e38 * x": ("mul", "overflow: beyond the range of the type"),
    "h * 1.6e38 + x * 1.6e38": ("add", "overflow: beyond the range of the type"),
    "sum(h * 1.5e38, axes=1, keepdims=true) + h": ("sum", "overflow: beyond the range of the type"),
    "(h * 1e38) @ full([2, 2], 2.0)": ("matmul", "overflow: beyond the range of the type"),
}


def program(expression: str, optimizer: str = "SGD(lr=0.1)", state: str = "") -> Compilation:
    return compile_text(TEXT.format(expression=expression, optimizer=optimizer, state=state))


def data(examples: int = EXAMPLES) -> Dataset:
    split = Split({"x": np.tile(np.float32([1, 2]), (examples, 1)), "target": np.zeros((examples, 2), np.float32)})
    return Dataset("points", split, split)


def blamed(compiled: Compilation, capture: Capture) -> Blame:
    found = find(run_generated("fused", compiled, capture).trace)
    assert found is not None and found.node is not None and found.node.origin is not None
    return found


def facts(compiled: Compilation, blame: Blame) -> tuple[str, int, str]:
    assert blame.node is not None and blame.node.origin is not None
    return blame.node.op.name, blame.node.origin.line, phase_of(blame.node, places_of(compiled, {}))


@pytest.mark.parametrize("expression", FORWARD)
def test_forward(expression: str, tmp_path: Path):
    op, reason = FORWARD[expression]
    compiled = program(expression)
    capture = captured(compiled, tmp_path / "run", data())
    assert (capture.epoch, capture.step, capture.indices.size) == (1, 1, BATCH)
    blame = blamed(compiled, capture)
    assert facts(compiled, blame) == (op, LINE, "forward")
    assert blame.node and blame.seen and reason_of(blame.node, blame.seen) == reason
    assert "loss" in blame.reached


def test_an_infinity_that_becomes_a_nan(tmp_path: Path):
    compiled = program("(h - 1) * exp(h * 1000)")
    blame = blamed(compiled, captured(compiled, tmp_path / "run", data()))
    assert blame.first_nan is not None and blame.first_nan[0].op.name == "mul"


def test_backward(tmp_path: Path):
    """The square root of zero is zero, but its derivative is not finite, and the loss of the first step is."""
    compiled = program("sqrt(h - 1)")
    capture = captured(compiled, tmp_path / "run", data())
    assert np.isfinite(capture.loss) and capture.bad == ("w",) and capture.step == 1
    assert facts(compiled, blamed(compiled, capture)) == ("div", LINE, "backward")


def test_the_branch_that_is_not_chosen(tmp_path: Path):
    """It is harmless in the forward pass, and to blame in the backward pass: zero times an infinity."""
    compiled = program("where(h > 1, sqrt(h - 1), h)")
    capture = captured(compiled, tmp_path / "run", data())
    assert np.isfinite(capture.loss)
    assert facts(compiled, blamed(compiled, capture))[1:] == (LINE, "backward")


@pytest.mark.parametrize(("optimizer", "op"), [("Divided(lr=0.1)", "div"), ("SGD(lr=1e30)", "mul")])
def test_update(optimizer: str, op: str, tmp_path: Path):
    """With an optimizer from the file, and with one from the standard library."""
    compiled = program("h * 1e10", optimizer)
    capture = captured(compiled, tmp_path / "run", data())
    blame = blamed(compiled, capture)
    assert facts(compiled, blame)[2] == "update" and capture.bad == ("w",)
    assert blame.node and blame.node.op.name == op and blame.node.origin and blame.node.origin.path == "w"


STATE = "state s: f32[] = zeros"


@pytest.mark.parametrize("checks", [True, False])
def test_a_state_that_the_loss_never_sees(checks: bool, tmp_path: Path):
    """Noticed with checks in the step itself, without them at the end of the epoch; the captured step is the same."""
    text = TEXT.format(expression="h\n  s = log(sum(x) - 100)", optimizer="SGD(lr=0.1)", state=STATE)
    compiled = compile_text(text)
    capture = captured(compiled, tmp_path / "run", data(), checks)
    assert (capture.step, capture.bad) == (1, ("s",))
    assert facts(compiled, blamed(compiled, capture)) == ("log", LINE + 1, "forward")


def test_data(tmp_path: Path):
    points = data()
    points.train.arrays["x"][7, 1] = np.nan
    compiled = program("h")
    capture = captured(compiled, tmp_path / "run", points)
    assert 7 in capture.indices
    blame = find(run_generated("fused", compiled, capture).trace)
    assert blame is not None and blame.node is None and blame.value.name == "x"


def test_the_test_data(tmp_path: Path):
    """The step is one of `evaluate`."""
    points = Dataset("points", data().train, data(6).test)
    points.test.arrays["x"][5] = 1e30
    compiled = program("h * h")
    capture = captured(compiled, tmp_path / "run", points)
    assert (capture.graph, capture.epoch, capture.step, capture.indices.tolist()) == ("evaluate", 1, 2, [4, 5])
    assert facts(compiled, blamed(compiled, capture)) == ("mul", LINE, "forward")


def test_float64_distinguishes_overflow_from_other_errors(tmp_path: Path):
    for expression, finite in (("exp(h * 100) * 1e-30", True), ("log(h - 3)", False)):
        compiled = program(expression)
        capture = captured(compiled, tmp_path / str(finite), data())
        exact = run_in_float64("float64", compiled, capture)
        assert (not exact.trace.bad) == finite
        found = find(exact.trace)
        assert finite or (found and facts(compiled, found) == ("log", LINE, "forward"))


HARMLESS = {
    "where(h > 0.5, h, stop_gradient(log(x - 1)))": "a branch that is not taken",
    "h + exp(stop_gradient(log(x - 1)))": "-inf as a mask",
    "min(h, stop_gradient(exp(x * 1000)))": "an infinity as a limit",
}


@pytest.mark.parametrize("expression", HARMLESS)
def test_harmless(expression: str, tmp_path: Path):
    compiled = program(expression)
    folder = RunFolder.create("M", "", tmp_path / "run")
    reporter = Reporter(quiet=True, stream=io.StringIO())
    loaded = LoadedProgram(compiled.executable, compiled.manifest)
    assert train(loaded, data(), run_folder=folder, reporter=reporter, check_numerics=True).epochs == 1


def test_harmless_infinities_are_not_blamed(tmp_path: Path):
    """A mask of -inf, next to an actual error."""
    compiled = program("exp(stop_gradient(log(x - 1))) + log(h - 3)")
    blame = blamed(compiled, captured(compiled, tmp_path / "run", data()))
    assert blame.seen and blame.node and blame.seen.operands[0].low < 0 and blame.node.op.name == "log"


def test_variables_that_begin_with_an_infinity_are_not_checked():
    variables = {"least": np.float32([np.inf, 1]), "w": np.zeros(2, np.float32), "step": np.zeros((), np.int32)}
    guard = Guard(variables)
    assert guard.bad() == ()
    variables["w"][1] = -np.inf
    assert guard.bad() == ("w",) and not guard.before["w"].any()


@np.errstate(all="ignore")
def test_large_numbers_are_finite():
    """Even though their sum is not."""
    assert all_finite(np.full(9, 3e38, np.float32)) and not all_finite(np.float32([np.inf, -np.inf]))
