"""CUDA code of the library's functions against mpmath, on the emulated device: the formulas of the device, with the
functions of the C library instead of those of CUDA. `pytest -s` prints the largest errors."""

from __future__ import annotations

import pytest

from runtime.program import LoadedProgram
from tests.accuracy import (
    CASES,
    LOSSES,
    ROWS,
    SPECIAL,
    TYPES,
    check_accuracy,
    check_labelled_rows,
    check_loss,
    check_rows,
    check_special_values,
)
from tests.gpu.cupy_or_skip import cupy
from tests.gpu.running import device_program_of
from tests.programs import compile_text

assert cupy
pytestmark = pytest.mark.usefixtures("emulated")


def start(text: str) -> LoadedProgram:
    compiled = compile_text(text, target="cupy")
    program = device_program_of(compiled.executable, compiled.manifest, graphs=False)
    program.initialize(0)
    return program


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("expression", CASES)
def test_accuracy(expression: str, dtype: str):
    check_accuracy(start, expression, dtype)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: str):
    check_loss(start, loss)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("expression", SPECIAL)
def test_special_values(expression: str, dtype: str):
    check_special_values(start, expression, dtype)


@pytest.mark.parametrize("expression", ROWS)
def test_rows_that_are_not_finite(expression: str):
    check_rows(start, expression)


def test_cross_entropy_of_logits_that_are_not_finite():
    check_labelled_rows(start)
