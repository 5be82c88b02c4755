"""Batch norm folding: factors per channel move into the weights if that saves work and nothing is trained."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from compiler.ir.interpreter import interpret
from compiler.ir.printer import print_graph
from compiler.passes.batch_norm_folding import fold_batch_norms
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.pipeline import run_pipeline
from tests.programs import BATCH, NUMPY_PIPELINE, compiled_model, read_graph, values_for

REWRITTEN = {
    "a convolution with an offset": (
        """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,2,4] param, %b: f32[4] param, %v: f32[4] state) {
  %0: f32[B,3,3,4] = conv2d(%x, %w, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %1: f32[B,3,3,4] = add(%0, %b)
  %2: f32[4] = exp(%v)
  %3: f32[B,3,3,4] = mul(%2, %1)
  return y=%3
}""",
        """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,2,4] param, %b: f32[4] param, %v: f32[4] state) {
  %0: f32[4] = exp(%v)
  %1: f32[3,3,2,4] = mul(%w, %0)
  %2: f32[B,3,3,4] = conv2d(%x, %1, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)
  %3: f32[4] = mul(%b, %0)
  %4: f32[B,3,3,4] = add(%2, %3)
  return y=%4
}""",
    ),
    "a depthwise convolution": (
        """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,1,4] param, %s: f32[1,1,1,4] param) {
  %0: f32[B,3,3,4] = conv2d(%x, %w, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=2)
  %1: f32[B,3,3,4] = mul(%0, %s)
  return y=%1
}""",
        """
graph g(%x: f32[B,5,5,2] input, %w: f32[3,3,1,4] param, %s: f32[1,1,1,4] param) {
  %0: f32[4] = reshape(%s, shape=[4])
  %1: f32[3,3,1,4] = mul(%w, %0)
  %2: f32[B,3,3,4] = conv2d(%x, %1, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=2)
  return y=%2
}""",
    ),
    "two factors after a matrix product, the first a number": (
        """
graph g(%x: f32[B,2,3] input, %w: f32[3,4] param, %b: f32[4] param, %s: f32[4] param) {
  %0: f32[B,2,4] = matmul(%x, %w)
  %1: f32[B,2,4] = mul(%0, 0.5)
  %2: f32[B,2,4] = add(%1, %b)
  %3: f32[B,2,4] = mul(%2, %s)
  return y=%3
}""",
        """
graph g(%x: f32[B,2,3] input, %w: f32[3,4] param, %b: f32[4] param, %s: f32[4] param) {
  %0: f32[3,4] = mul(%w, 0.5)
  %1: f32[3,4] = mul(%0, %s)
  %2: f32[B,2,4] = matmul(%x, %1)
  %3: f32[4] = mul(%b, %s)
  %4: f32[B,2,4] = add(%2, %3)
  return y=%4
}""",
    ),
}
UNTOUCHED = {
    "a product that something else reads": """
graph g(%x: f32[B,3] input, %w: f32[3,4] param, %s: f32[4] param) {
  %0: f32[B,4] = matmul(%x, %w)
  %1: f32[B,4] = mul(%0, %s)
  %2: f32[B,4] = sub(%1, %0)
  return y=%2
}""",
    "weights and factors that come from the data, and from their statistics": """
graph g(%x: f32[B,3] input, %u: f32[3,4] input, %w: f32[3,4] param, %s: f32[4] param) {
  %0: f32[B,4] = matmul(%x, %u)
  %1: f32[B,4] = mul(%0, %s)
  %2: f32[B,4] = matmul(%x, %w)
  %3: f32[4] = sum(%0, axes=[0], keepdims=false)
  %4: f32[B,4] = mul(%2, %3)
  return y=%1, z=%4
}""",
    "factors and offsets along other axes": """
graph g(%x: f32[B,2,3] input, %w: f32[3,4] param, %s: f32[2,1] param, %c: f32[4] param) {
  %0: f32[B,2,4] = matmul(%x, %w)
  %1: f32[B,2,4] = mul(%0, %s)
  %2: f32[B,2,4] = matmul(%x, %w)
  %3: f32[B,2,4] = add(%2, %s)
  %4: f32[B,2,4] = mul(%3, %c)
  return y=%1, z=%4
}""",
    "a graph that trains": """
graph g(%x: f32[B,3] input, %w: f32[3,4] param, %s: f32[4] param) {
  %0: f32[B,4] = matmul(%x, %w)
  %1: f32[B,4] = mul(%0, %s)
  %2: f32[4] = exp(%s)
  return y=%1, s=%2
}""",
}


@pytest.mark.parametrize("what", REWRITTEN)
def test_rewritten(what: str):
    before, after = REWRITTEN[what]
    graph = read_graph(before)
    folded = remove_dead_code(fold_batch_norms(graph))
    assert print_graph(folded) == after.strip()
    assert print_graph(remove_dead_code(fold_batch_norms(folded))) == after.strip()
    inputs = values_for(graph, BATCH)
    np.testing.assert_allclose(interpret(folded, inputs, BATCH)["y"], interpret(graph, inputs, BATCH)["y"], rtol=1e-12)


@pytest.mark.parametrize("what", UNTOUCHED)
def test_untouched(what: str):
    assert print_graph(fold_batch_norms(read_graph(UNTOUCHED[what]))) == UNTOUCHED[what].strip()


def test_batch_normalization_leaves_one_addition():
    """In cnn: everything else depends only on variables, and is computed separately."""
    names = [each.name for each in NUMPY_PIPELINE]
    graph = run_pipeline(compiled_model("cnn").module, NUMPY_PIPELINE[: names.index("fusion")])["predict"]
    ops = Counter(node.op.name for node in graph.nodes)
    assert not {"sqrt", "div", "sub", "mul"} & set(ops)
    assert (ops["add"], ops["max"]) == (4, 3)
