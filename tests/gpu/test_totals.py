"""Metrics with totals on the device: added up there, and what follows is computed on the host."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.driver import compile_tree
from compiler.language.parser import parse
from runtime.feeding import runner_of
from runtime.program import LoadedProgram
from tests.elaborate.running import Diagnostics
from tests.gpu.running import device_program_of
from tests.runtime.test_standard_metrics import DATA, METRICS, SKLEARN, program_text
from tests.runtime.test_totals import PROGRAM, ROWS, dataset

pytestmark = pytest.mark.usefixtures("emulated")


def program_of(text: str, target: str) -> LoadedProgram:
    compiled = compile_tree(parse(text, "test.nn", Diagnostics()), target=target)
    if target == "cupy":
        assert "bind_metrics" not in compiled.executable.source
        return device_program_of(compiled.executable, compiled.manifest)
    return LoadedProgram(compiled.executable, compiled.manifest)


@pytest.mark.parametrize("kind", METRICS)
def test_metrics_of_the_library(kind: str):
    program, arrays = program_of(program_text(kind, 64), "cupy"), DATA[kind]()
    program.initialize(0)
    runner = runner_of(program, "evaluate", arrays)
    for _ in range(2):  # totals begin anew
        found = runner.means(np.arange(runner.examples), 64)
    for name, value in zip(METRICS[kind][0].split(", "), list(found.values())[1:], strict=True):
        np.testing.assert_allclose(value, SKLEARN[name], rtol=1e-6, err_msg=name)


def test_training_and_evaluation_are_as_on_the_host():
    """A loss with totals, a fn among metrics, the largest and the smallest; the last batch is smaller."""
    found = []
    for target in ("numpy", "cupy"):
        program, arrays = program_of(PROGRAM, target), dataset().train.arrays
        program.initialize(3)
        order = np.random.default_rng(0).permutation(ROWS)
        found.append([runner_of(program, graph, arrays).means(order, 7) for graph in ("train_step", "evaluate")])
    for here, there in zip(*found, strict=True):
        assert list(here) == list(there)
        for name, value in here.items():
            np.testing.assert_allclose(there[name], value, rtol=1e-5, err_msg=name)
