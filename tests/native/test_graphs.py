"""Generated C against the float64 interpreter: every sample of every op, and delicate graphs.

On one, two and three threads, at two batch sizes, with bytes that are read
before they are written NaN and zero, and between guards that no graph may write to (together.py).
"""

from __future__ import annotations

from functools import cache
from itertools import product
from zlib import crc32

import numpy as np
import pytest

import tests.native.compiler_or_skip  # noqa: F401
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays, interpret
from compiler.ir.op import Op, Sample
from compiler.ops import OPS
from tests.delicate import DELICATE, delicate_graph
from tests.native.running import THREADS, NativeSteps
from tests.native.together import NAN, Together, together
from tests.programs import BATCH, values_for
from tests.targets.test_against_interpreter import SAMPLES, assert_close

FILLS = (NAN, 0)
WAYS = [*product(THREADS, FILLS)]
JOINED = True  # whether graphs are compiled with all others: not if only one of them is going to be run


def graph_of(op: Op, sample: Sample) -> Graph:
    """A graph of one node."""
    graph = Graph("sample")
    builder = Builder(graph)
    operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
    builder.emit(op.name, operands, sample.make_attributes())
    graph.outputs = {f"y{i}": result for i, result in enumerate(graph.nodes[0].results)}
    return graph


def inputs_of(op: Op, sample: Sample, batch: int) -> Arrays:
    generator = np.random.default_rng(crc32(f"{op.name} {sample.operands}".encode()))
    inputs = {f"x{i}": operand.draw(generator, batch) for i, operand in enumerate(sample.operands)}
    return {name: x.astype(np.float32).astype(np.float64) if x.dtype.kind == "f" else x for name, x in inputs.items()}


@cache
def libraries() -> Together:
    """The libraries of all graphs of this file that are compiled together."""
    return Together()


def compiled(graph: Graph, batch: int) -> NativeSteps:
    with together(libraries()):
        return NativeSteps(graph, batch, libraries())


@cache
def all_graphs() -> dict[str, NativeSteps]:
    """Every graph that is not part of a program."""
    samples = {f"{op.name}-{i}": graph_of(op, s) for op in OPS.values() for i, s in enumerate(op.samples)}
    found = {name: compiled(graph, 2) for name, graph in samples.items()}
    return found | {name: compiled(delicate_graph(name), BATCH) for name in DELICATE}


def native_steps(name: str, graph: Graph, batch: int) -> NativeSteps:
    return all_graphs()[name] if JOINED else compiled(graph, batch)


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_op_sample(op: Op, sample: Sample, request: pytest.FixtureRequest):
    name = f"{op.name}-{op.samples.index(sample)}"
    graph = graph_of(op, sample)
    run = native_steps(name, graph, 2)
    for batch in (2, 1):
        inputs = inputs_of(op, sample, batch)
        expected = interpret(graph, inputs, batch)
        for threads, fill in WAYS:
            assert_close(run(inputs, batch, threads, fill), expected)


@pytest.mark.parametrize("name", DELICATE)
def test_delicate_graph(name: str):
    graph = delicate_graph(name)
    run = native_steps(name, graph, BATCH)
    for batch in (BATCH, 1):
        inputs = values_for(graph, batch)
        expected = interpret(graph, inputs, batch)
        for threads, fill in WAYS:
            assert_close(run(inputs, batch, threads, fill), expected)
