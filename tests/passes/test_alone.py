"""Every pass alone, in float64: on the five models, and on every sample of every op together with its gradient."""

from __future__ import annotations

from functools import cache
from zlib import crc32

import numpy as np
import pytest

from compiler.gradient.autodiff import gradient_rule, gradients
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays, interpret
from compiler.ir.op import Op, Sample
from compiler.ops import OPS
from compiler.passes.pipeline import Pass, run_pass
from tests.delicate import DELICATE, delicate_graph
from tests.programs import BATCH, MODELS, PIPELINES, compiled_model, values_for

PASSES = list({each.run: each for passes in PIPELINES.values() for each in passes if not each.of_module}.values())


def assert_same(found: Arrays, expected: Arrays, each: Pass, on: str = "") -> None:
    """Equal apart from the last digits: sums may be computed in another order. Outputs that the pass adds are 0."""
    what = each.name + on
    added = [name for name in found if each.adds and name.startswith(each.adds)]
    assert not any(found.pop(name).any() for name in added)
    assert found.keys() == expected.keys(), what
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, f"{what}: {name}"
        scale = max(1.0, float(np.abs(value[np.isfinite(value)]).max(initial=0.0)))
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12 * scale, err_msg=f"{what}: {name}")


@cache
def results(model: str, name: str) -> tuple[Graph, Arrays, Arrays]:
    """A graph of a model before all passes, its inputs, and its outputs."""
    graph = compiled_model(model).module[name]
    inputs = values_for(graph, BATCH)
    inputs |= {value.name: np.abs(inputs[value.name]) for value in graph.of_kind("state")}  # some are variances
    return graph, inputs, interpret(graph, inputs, BATCH)


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
@pytest.mark.parametrize("name", ["train_step", "predict"])
@pytest.mark.parametrize("model", MODELS)
def test_a_pass_alone_keeps_the_meaning_of_models(model: str, name: str, each: Pass):
    graph, inputs, expected = results(model, name)
    changed = run_alone(each, graph)
    assert_same(interpret(changed, inputs, BATCH), expected, each)


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
@pytest.mark.parametrize("name", DELICATE)
def test_a_pass_alone_keeps_the_meaning_of_delicate_graphs(name: str, each: Pass):
    graph = delicate_graph(name)
    inputs = values_for(graph, BATCH)
    assert_same(interpret(run_alone(each, graph), inputs, BATCH), interpret(graph, inputs, BATCH), each)


def run_alone(each: Pass, graph: Graph) -> Graph:
    """The verified result of a pass."""
    return run_pass(each, {graph.name: graph})[graph.name]


def with_gradient(op: Op, sample: Sample) -> Graph:
    """y0 … of the sample, and the gradients of the float results if the op has any."""
    graph = Graph("sample")
    builder = Builder(graph)
    operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
    builder.emit(op.name, operands, sample.make_attributes())
    results = graph.nodes[0].results
    graph.outputs = {f"y{i}": result for i, result in enumerate(results)}
    floats = [value for value in operands if value.type.is_float]
    seeds = {r: builder.input(f"dy{i}", r.type, "input") for i, r in enumerate(results) if r.type.is_float}
    if gradient_rule(op) is not None and floats and seeds:
        found = gradients(builder, seeds, floats)
        graph.outputs |= {f"d{value.name}": slope for value, slope in zip(floats, found, strict=True) if slope}
    return graph


def drawn(op: Op, sample: Sample, graph: Graph) -> Arrays:
    generator = np.random.default_rng(crc32(f"{op.name} {sample.operands}".encode()))
    inputs = {f"x{i}": operand.draw(generator, BATCH) for i, operand in enumerate(sample.operands)}
    return values_for(graph, BATCH) | inputs


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
def test_a_pass_alone_keeps_the_meaning_of_samples(each: Pass):
    for op in OPS.values():
        for i, sample in enumerate(op.samples):
            graph = with_gradient(op, sample)
            inputs = drawn(op, sample, graph)
            with np.errstate(all="ignore"):
                expected = interpret(graph, inputs, BATCH)
                changed = run_alone(each, graph)
                assert_same(interpret(changed, inputs, BATCH), expected, each, f" on {op.name}-{i}")
