"""Layouts against NumPy: which reshapes of which buffers are views, and with which strides."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.types import Batch, TensorType
from compiler.planning import strides
from compiler.planning.strides import batch_last, order_of, strides_in_order, view_strides
from compiler.targets.numpy.order import preferred_order
from tests.programs import read_graph

BATCH = 7


def random_split(generator: np.random.Generator, count: int) -> list[int]:
    """A shape of `count` elements."""
    dims = []
    for prime in (2, 3, 5, 7):
        while count % prime == 0:
            count //= prime
            if dims and generator.random() < 0.4:
                dims[generator.integers(len(dims))] *= prime
            else:
                dims.insert(int(generator.integers(len(dims) + 1)), prime)
    if generator.random() < 0.3:
        dims.insert(int(generator.integers(len(dims) + 1)), 1)
    return dims


def test_reshape_is_a_view_exactly_where_numpy_makes_one():
    generator = np.random.default_rng(0)
    views = 0
    for _ in range(3000):
        shape = tuple(int(d) for d in generator.choice([1, 2, 3, 4, 6], generator.integers(1, 5)))
        order = tuple(int(axis) for axis in generator.permutation(len(shape)))
        array = np.arange(np.prod(shape)).reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
        new = tuple(random_split(generator, array.size))
        graph = Graph("g")
        builder = Builder(graph)
        builder.reshape(builder.input("x", TensorType("f32", shape), "input"), shape=new)
        found = view_strides(graph.nodes[0], strides_in_order(shape, order))
        expected = array.reshape(new)
        assert (found is not None) == np.shares_memory(expected, array), (shape, order, new)
        if found is not None:
            views += 1
            for dim, stride, exact in zip(new, found, expected.strides, strict=True):
                assert dim == 1 or stride * array.itemsize == exact, (shape, order, new)
    assert views > 1000


VIEWS = """
graph g(%x: f32[B,4,6] input) {
  %0: f32[4,B,6] = transpose(%x, permutation=[1,0,2])
  %1: f32[B,2,3] = slice(%x, start=[0,1,0], stop=[B,4,6], step=[1,2,2])
  %2: f32[B,4,6] = flip(%x, axes=[2])
  %3: f32[3,B,4,6] = broadcast(%x, shape=[3,B,4,6])
  return a=%0, b=%1, c=%2, d=%3
}"""


@pytest.mark.parametrize("index", range(4))
def test_strides_of_other_views_are_those_of_numpy(index: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(strides, "SAMPLE_BATCH", BATCH)
    node = read_graph(VIEWS).nodes[index]
    array = np.zeros((4, 6, BATCH)).transpose(2, 0, 1)
    numpy_views = (
        lambda x: x.transpose(1, 0, 2), lambda x: x[:, 1:4:2, ::2], lambda x: x[:, :, ::-1],
        lambda x: np.broadcast_to(x, (3, *x.shape)),
    )  # fmt: skip
    found = view_strides(node, strides_in_order(node.operands[0].type.shape, (1, 2, 0)))
    assert found is not None
    assert [s * array.itemsize for s in found] == list(numpy_views[index](array).strides)


def test_the_batch_lies_innermost():
    assert batch_last((Batch(), 28, 28)) == (1, 2, 0)
    graph = read_graph("""
    graph g(%x: f32[B,5,5,2] input, %w: f32[50,3] param) {
      %0: f32[B,5,5,2] = exp(%x)
      %1: f32[B,50] = reshape(%0, shape=[B,50])
      %2: f32[B,3] = matmul(%1, %w)
      %3: f32[B,3] = neg(%2)
      return y=%3
    }""")
    strides = {value: strides_in_order(value.type.shape, tuple(range(value.type.rank))) for value in graph.inputs}
    orders = []
    for node in graph.nodes:
        orders.append(preferred_order(node, 0, strides))
        strides[node.result] = strides_in_order(node.result.type.shape, orders[-1])
    assert orders == [(1, 2, 3, 0), (1, 0), (1, 0), (1, 0)]


def test_broadcast_tensors_have_no_order():
    assert order_of((0, 1)) is None
    assert order_of((1, -6, 2)) == (1, 2, 0)
