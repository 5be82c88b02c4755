"""The gradients of products whose operands repeat along leading axes: one product, not a stack that is summed."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.gradient.autodiff import gradients
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.interpreter import interpret
from compiler.ir.types import at_batch, extent
from tests.programs import compile_text, read_graph, run_graph

EPSILON = 1e-6
BATCH = 3
SHAPES = [  # both operands, of ranks 2 to 4, where one or both repeat
    ("B,2,3", "3,4"), ("2,B,3", "3,4"), ("B,2,2,3", "3,4"), ("B,2,5,3", "2,3,4"), ("2,B,1,3", "2,1,3,4"),
    ("B,2,3", "1,3,4"), ("5,3", "B,3,4"), ("5,3", "2,B,3,4"), ("2,5,3", "B,2,3,4"), ("1,5,3", "B,3,4"),
    ("B,1,5,3", "2,3,4"), ("2,1,5,3", "B,3,4"), ("1,B,3", "2,1,3,4"), ("1,1,5,3", "B,3,4"), ("B,3", "1,1,3,4"),
]  # fmt: skip


def differentiated(a: str, b: str) -> Graph:
    graph = read_graph(f"graph g(%a: f64[{a}] input, %b: f64[{b}] input) {{\n  return a=%a\n}}")
    builder = Builder(graph)
    c = builder.matmul(*graph.inputs)
    dc = builder.input("dc", c.type, "input")
    da, db = gradients(builder, {c: dc}, graph.inputs[:2])
    assert da is not None and db is not None
    graph.outputs = {"c": c, "da": da, "db": db}
    return graph


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_no_stack_of_products_is_summed(a: str, b: str):
    graph = differentiated(a, b)
    names = [node.op.name for node in graph.nodes]
    largest = max(extent(value.type.shape).at(1000) for value in (*graph.inputs, graph.outputs["c"]))
    assert names.count("matmul") == 3
    assert "sum" not in names
    assert all(extent(node.result.type.shape).at(1000) <= largest for node in graph.nodes)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_values_are_those_of_differences_and_of_generated_code(a: str, b: str):
    graph = differentiated(a, b)
    random = np.random.default_rng(0)
    inputs = {value.name: random.normal(size=at_batch(value.type.shape, BATCH)) for value in graph.inputs}
    found = interpret(graph, inputs, BATCH)
    for name in ("a", "b"):
        slope = np.zeros(inputs[name].shape)
        for index in np.ndindex(slope.shape):
            ends = []
            for move in (EPSILON, -EPSILON):
                moved = inputs[name].copy()
                moved[index] += move
                ends.append((np.matmul(*((inputs | {name: moved})[key] for key in "ab")) * inputs["dc"]).sum())
            slope[index] = (ends[0] - ends[1]) / (2 * EPSILON)
        np.testing.assert_allclose(found[f"d{name}"], slope, 1e-3, 1e-5)
    generated = run_graph(graph, inputs, BATCH)
    for name, array in found.items():
        np.testing.assert_allclose(generated[name], array, 1e-12, 1e-12)


def test_two_batches_cannot_be_one_axis_so_one_is_summed():
    graph = differentiated("B,B,3", "3,4")
    assert [node.op.name for node in graph.nodes].count("sum") == 1


PROGRAM = """
model M(x: f32[B, 2, 784]) {{ return {body} |> Dense(10) }}
train M {{ loss = softmax_cross_entropy; optimizer = SGD(lr=0.1) }}
"""
STACKED = "x |> Dense(512, activation=relu) |> Flatten"
BY_HAND = "reshape(reshape(x, [2*B, 784]) |> Dense(512, activation=relu), [B, 1024])"


def test_a_dense_layer_on_a_sequence_needs_the_memory_of_one_on_rows():
    stacked, by_hand = (compile_text(PROGRAM.format(body=body)) for body in (STACKED, BY_HAND))
    assert stacked.executable.arena_bytes <= 1.1 * by_hand.executable.arena_bytes
