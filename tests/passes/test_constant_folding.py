"""Constant folding: every elementwise op on numbers, and near misses."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal
from compiler.ir.interpreter import interpret
from compiler.ir.op import ELEMENTWISE, Op, Sample
from compiler.ir.printer import print_graph
from compiler.ops import OPS
from compiler.passes.constant_folding import fold_constants
from tests.programs import read_graph

SCALARS = [
    pytest.param(op, sample, id=op.name)
    for op in OPS.values()
    for sample in op.samples
    if ELEMENTWISE in op.traits and all(operand.type.shape == () for operand in sample.operands)
]


def graph_of_numbers(op: Op, sample: Sample) -> Graph:
    """The op on literals drawn as the sample says, with its result as the only output."""
    generator = np.random.default_rng(0)
    operands = [Literal(operand.type, value=operand.draw(generator, 1).item()) for operand in sample.operands]
    graph = Graph("g")
    graph.outputs = {"y": Builder(graph).emit(op.name, operands, sample.make_attributes())}
    return graph


@pytest.mark.parametrize(("op", "sample"), SCALARS)
def test_every_elementwise_op_on_numbers_becomes_a_number(op: Op, sample: Sample):
    graph = graph_of_numbers(op, sample)
    folded = fold_constants(graph)
    assert not folded.nodes and folded.outputs["y"].type == graph.outputs["y"].type
    np.testing.assert_equal(interpret(folded, {})["y"], interpret(graph, {})["y"])


def test_a_chain_of_numbers():
    before = """
graph g(%x: f32[3] input) {
  %0: f32[] = sqrt(16.0)
  %1: f32[] = reshape(%0, shape=[])
  %2: i32[] = add(2, 3)
  %3: f32[] = cast(%2, dtype="f32")
  %4: f32[] = mul(%1, %3)
  %5: bool[] = lt(%4, 1.0)
  %6: f32[] = select(%5, inf, 0.1)
  %7: f32[3] = mul(%x, %6)
  return y=%7, z=%4, c=%5
}"""
    after = """
graph g(%x: f32[3] input) {
  %0: f32[3] = mul(%x, 0.1)
  return y=%0, z=20.0, c=false
}"""
    folded = fold_constants(read_graph(before))
    assert print_graph(folded) == after.strip()
    assert print_graph(fold_constants(folded)) == after.strip()


def test_near_misses():
    """Numbers that the dtype cannot represent, tensors, values known only at run time, and a number as a new tensor."""
    text = """
graph g(%x: f32[] input, %seed: i64[] counter) {
  %0: f32[] = exp(100.0)
  %1: f32[3] = broadcast(0.5, shape=[3])
  %2: f32[] = add(%x, 0.5)
  %3: f32[] = extent(factor=2, power=1)
  %4: f32[] = random(0:i64, 0, shape=[], distribution="uniform", stream=1)
  %5: i32[1] = iota(size=1)
  return a=%0, b=%1, c=%2, d=%3, e=%4, f=%5
}"""
    assert print_graph(fold_constants(read_graph(text))) == text.strip()
