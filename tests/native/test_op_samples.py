"""Every sample of every op as C, against the float64 interpreter: many samples in one text, no two in one region."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import tests.native.compiler_or_skip  # noqa: F401
from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays, interpret
from compiler.ir.op import Op, Sample
from compiler.passes.pipeline import run_pipeline
from compiler.planning.memory import plan_graph
from compiler.targets.target import find_target
from runtime.allowed import NATIVE_PROGRAMS
from runtime.program import Executable, aligned_zeros, load_functions
from tests.gpu.samples import BATCH, draw_inputs, graph_of
from tests.targets.test_against_interpreter import SAMPLES, assert_close

TARGET = find_target("c")
TOGETHER = 48
CASES: list[tuple[Op, Sample]] = [each.values for each in SAMPLES]


def chunk_of(first: int) -> tuple[Graph, Arrays]:
    """A graph of some samples after all passes, and its inputs; all names of sample n begin with `s<n>_`."""
    graph, given = Graph("samples"), {}
    for number, (op, sample) in enumerate(CASES[first : first + TOGETHER], first):
        prefix, inputs = f"s{number}_", draw_inputs(op, sample)
        (one,) = run_pipeline({"sample": graph_of(op, sample)}, TARGET.pipeline).values()
        given |= {f"{prefix}{name}": array for name, array in inputs.items()}
        for value in one.inputs:
            value.name = f"{prefix}{value.name}"
        graph.inputs += one.inputs
        graph.nodes += one.nodes
        graph.outputs |= {f"{prefix}{name}": value for name, value in one.outputs.items()}
    return graph, given


@cache
def results_of(first: int) -> Arrays:
    """The results of samples `first` and later, from an arena full of NaN."""
    graph, given = chunk_of(first)
    plan = plan_graph(graph, BATCH, 0, {}, TARGET.placement)
    executable = Executable(TARGET.generate("a test", [plan], []), "<test>", plan.size, BATCH, TARGET.name)
    arena = aligned_zeros(plan.size)
    arena[:] = 0xFF
    run, views, outputs = load_functions(executable, NATIVE_PROGRAMS)[graph.name](arena, BATCH)
    for name, view in views.items():
        view[...] = given[name]
    run()
    return {name: np.array(array) for name, array in outputs.items()}


@pytest.mark.parametrize("number", [pytest.param(i, id=each.id) for i, each in enumerate(SAMPLES)])
def test_op_sample(number: int):
    found = results_of(number - number % TOGETHER)
    op, sample = CASES[number]
    expected = interpret(graph_of(op, sample), draw_inputs(op, sample), BATCH)
    assert_close({name: found[f"s{number}_{name}"] for name in expected}, expected)
