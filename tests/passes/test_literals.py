"""Literals in place of tensors, which programs seldom have but IR text may: code can be generated for them."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.interpreter import interpret
from compiler.ir.printer import print_graph
from compiler.passes.materialize import materialize_outputs
from compiler.passes.pipeline import choose
from compiler.reports.stages import show_stage, stages_of_module
from tests.programs import NUMPY_PIPELINE, read_graph, run_graph

CONSTANT = """\
graph g(%h: f32[2] input, %x: f32[3,2] input) {
  %0: f32[2], %1: f32[], %2: f32[3,2] = scan(%h, 1.0, %x, 0.5, carries=2, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %c: f32[] carry, %x: f32[2] sequence, %k: f32[] constant) {
    %0: f32[2] = mul(%h, %k)
    %1: f32[2] = add(%0, %x)
    return y0=%1, y1=%k, y2=%0
  })
  return a=%0, b=%1, c=%2
}"""
INSIDE = """\
graph g(%h: f32[2] input, %x: f32[3,2] input) {
  %0: f32[2], %1: f32[], %2: f32[3,2] = scan(%h, 1.0, %x, 0.5, carries=2, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %c: f32[] carry, %x: f32[2] sequence, %k: f32[] constant) {
    %0: f32[] = copy(0.5)
    %1: f32[2] = mul(%h, 0.5)
    %2: f32[2] = add(%1, %x)
    return y0=%2, y1=%0, y2=%1
  })
  return a=%0, b=%1, c=%2
}"""
VIEWS = """\
graph g(%x: f32[2] input) {
  %0: f32[] = transpose(0.5, permutation=[])
  %1: f32[] = flip(0.5, axes=[])
  %2: f32[] = slice(0.5, start=[], stop=[], step=[])
  %3: f32[1,1] = reshape(0.5, shape=[1,1])
  %4: f32[2] = mul(%x, %1)
  return a=%0, b=%4, c=%2, d=%3
}"""

INPUTS = {
    CONSTANT: {"h": np.array([1.0, 2.0]), "x": np.arange(6.0).reshape(3, 2)},
    VIEWS: {"x": np.array([1.0, 2.0])},
}


def test_constants_of_a_scan_are_put_into_its_body():
    graph = read_graph(CONSTANT)
    assert print_graph(materialize_outputs(graph)) == INSIDE
    assert print_graph(graph) == CONSTANT and print_graph(materialize_outputs(read_graph(INSIDE))) == INSIDE


@pytest.mark.parametrize("text", INPUTS)
def test_generated_code_computes_with_them(text: str):
    graph, given = read_graph(text), INPUTS[text]
    found = run_graph(graph, given, 1)
    for name, value in interpret(graph, given).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)


@pytest.mark.parametrize("text", INPUTS)
def test_they_need_only_the_required_passes(text: str):
    required = [each.name for each in NUMPY_PIPELINE if each.required]
    stages = stages_of_module({"g": read_graph(text)}, choose(NUMPY_PIPELINE, required, []), "g.ir", 1)
    compile(show_stage(stages, "source"), "g", "exec")
