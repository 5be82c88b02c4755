"""The samples of ops, each as a graph."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays
from compiler.ir.op import Op, Sample

BATCH = 2


def graph_of(op: Op, sample: Sample) -> Graph:
    graph = Graph("sample")
    builder = Builder(graph)
    operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
    builder.emit(op.name, operands, sample.make_attributes())
    graph.outputs = {f"y{i}": result for i, result in enumerate(graph.nodes[0].results)}
    return graph


def computed_on_the_host(op: Op, sample: Sample) -> bool:
    """Whether the op draws initial values, for which there are no kernels."""
    node = graph_of(op, sample).nodes[0]
    drawn = op.name == "orthogonalize" or node.attributes.get("distribution", "uniform") != "uniform"
    return drawn and 0 not in node.result.type.shape


def draw_inputs(op: Op, sample: Sample) -> Arrays:
    """Values that are exact in f32, as f64."""
    generator = np.random.default_rng(crc32(f"{op.name} {sample.operands}".encode()))
    drawn = [operand.draw(generator, BATCH) for operand in sample.operands]
    return {f"x{i}": x.astype(np.float32).astype(np.float64) if x.dtype.kind == "f" else x for i, x in enumerate(drawn)}
