"""Every op of the table, through its own samples: shape rule against reference, gradient rule against differences.

Nothing here names an op, apart from two exceptions stated as data. A new op is tested as soon as it is in the table,
and collection fails if it has no samples or no samples that it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np
import pytest

from compiler.gradient.autodiff import NotDifferentiable, gradient_rule, gradients
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Value
from compiler.ir.interpreter import bind_batch, interpret, reference_dtype
from compiler.ir.op import BATCH, Op, Sample
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.ir.types import TypeRuleError, at_batch
from compiler.ir.verifier import verify_graph
from compiler.ops import OPS

DRAWS = 10
EPSILON, ATOL, RTOL = 1e-6, 1e-5, 1e-3
# Ops whose rule deliberately does not give the derivative.
NO_SLOPE = {"stop_gradient": "stops it", "orthogonalize": "refuses, rather than being silently zero"}

Arrays = dict[str, np.ndarray]


def cases(kind: str) -> list:
    """(op, sample) for all samples or errors of the table; raises if an op has none."""
    missing = [op.name for op in OPS.values() if not getattr(op, kind)]
    if missing:
        raise LookupError(f"ops without {kind}: {', '.join(missing)}")
    return [
        pytest.param(op, case, id=f"{op.name}-{i}") for op in OPS.values() for i, case in enumerate(getattr(op, kind))
    ]


SAMPLES, ERRORS = cases("samples"), cases("errors")
SLOPES = [case for case in SAMPLES if case.values[0].name not in NO_SLOPE]


def build(op: Op, sample: Sample) -> tuple[Builder, Graph]:
    """A graph of the one op; its inputs are x0, x1, …, its outputs y0, y1, …"""
    graph = Graph("sample")
    builder = Builder(graph)
    operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
    builder.emit(op.name, operands, sample.make_attributes())
    graph.outputs = {f"y{i}": result for i, result in enumerate(graph.nodes[0].results)}
    return builder, graph


def draws(op: Op, sample: Sample, batch: int) -> list[Arrays]:
    generator = np.random.default_rng(crc32(f"{op.name} {sample.operands} {batch}".encode()))
    return [
        {f"x{i}": operand.draw(generator, batch) for i, operand in enumerate(sample.operands)} for _ in range(DRAWS)
    ]


def derive(builder: Builder) -> dict[str, Value]:
    """Makes the graph return the gradient of its float outputs, times new inputs, with respect to its float inputs.

    Returns the new inputs by the name of the output that each multiplies.
    """
    graph = builder.graph
    wanted = [value for value in graph.inputs if value.type.is_float]
    outputs = {value: name for name, value in graph.outputs.items() if value.type.is_float}  # each value once
    weights = {name: builder.input(f"d{name}", value.type, "input") for value, name in outputs.items()}
    found = gradients(builder, {graph.outputs[name]: weight for name, weight in weights.items()}, wanted)
    graph.outputs = {value.name: slope for value, slope in zip(wanted, found, strict=True) if slope is not None}
    verify_graph(graph, "differentiation")
    return weights


def compare(op: Op, sample: Sample, order: int, count: int) -> None:
    """Compares the derivative of `order` with central differences of the one before, at `count` points."""
    (before, plain), (builder, graph) = build(op, sample), build(op, sample)
    for each in [before, builder] * (order - 1):
        derive(each)
    weights = derive(builder)
    generator = np.random.default_rng(order)
    for inputs in draws(op, sample, batch=2)[:count]:
        inputs |= {v.name: generator.uniform(-1.0, 1.0, at_batch(v.type.shape, 2)) for v in plain.inputs[len(inputs) :]}
        drawn = {name: generator.uniform(-1.0, 1.0, at_batch(v.type.shape, 2)) for name, v in weights.items()}
        slopes = interpret(graph, inputs | {f"d{name}": weight for name, weight in drawn.items()}, 2)
        for name in (value.name for value in plain.inputs if value.type.is_float):
            expected = difference(lambda moved, drawn=drawn: projected(plain, moved, drawn), inputs, name)
            slope = slopes.get(name, np.zeros(expected.shape))
            np.testing.assert_allclose(slope, expected, RTOL, ATOL, err_msg=f"{op.name}, input {name}")


def projected(graph: Graph, inputs: Arrays, weights: Arrays) -> float:
    """The sum of all outputs times their weights, without infinite elements: they have no slope."""
    results = interpret(graph, inputs, 2)
    return sum(float((weight * finite(results[name])).sum()) for name, weight in weights.items())


def finite(array: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(array), 0.0, array)


def difference(function: Callable[[Arrays], float], inputs: Arrays, name: str) -> np.ndarray:
    """Central differences with respect to each element of one input."""
    slope = np.zeros(inputs[name].shape)
    for index in np.ndindex(slope.shape):
        ends = []
        for move in (EPSILON, -EPSILON):
            moved = np.array(inputs[name])
            moved[index] += move
            ends.append(function(inputs | {name: moved}))
        slope[index] = (ends[0] - ends[1]) / (2.0 * EPSILON)
    return slope


@pytest.mark.parametrize("op, sample", SAMPLES)
def test_result_has_the_type_of_the_rule(op: Op, sample: Sample):
    _, graph = build(op, sample)
    for batch in (1, 2):
        results = interpret(graph, draws(op, sample, batch)[0], batch)
        for value, array in zip(graph.outputs.values(), results.values(), strict=True):
            assert array.shape == at_batch(value.type.shape, batch)
            assert array.dtype == reference_dtype(value.type)
            assert not np.isnan(array).any()


@pytest.mark.parametrize("op, sample", SAMPLES)
def test_reference_gives_the_dtype_itself(op: Op, sample: Sample):
    """The interpreter converts results, but a reference must not rely on it, except for float32 random numbers."""
    _, graph = build(op, sample)
    arrays = draws(op, sample, 2)[0].values()
    attributes = {name: bind_batch(value, 2) for name, value in graph.nodes[0].attributes.items()}
    results = op.reference(*arrays, **attributes, **({"batch": 2} if BATCH in op.traits else {}))
    for value, array in zip(graph.nodes[0].results, results if isinstance(results, list) else [results], strict=True):
        assert np.asarray(array).dtype.kind == reference_dtype(value.type).kind


@pytest.mark.parametrize("op, sample", SAMPLES)
def test_sample_survives_printing_and_reading(op: Op, sample: Sample):
    _, graph = build(op, sample)
    verify_graph(graph, "building")
    text = print_module({"sample": graph})
    assert print_module(read_module(text)) == text


@pytest.mark.parametrize("op, sample", SLOPES)
def test_gradient_agrees_with_differences(op: Op, sample: Sample):
    compare(op, sample, order=1, count=DRAWS)


@pytest.mark.parametrize("op, sample", SLOPES)
def test_gradient_of_the_gradient_agrees_with_differences(op: Op, sample: Sample):
    compare(op, sample, order=2, count=1)


@pytest.mark.parametrize("op", [op for op in OPS.values() if gradient_rule(op) is None])
def test_op_without_gradient_rule_refuses_to_be_differentiated(op: Op):
    builder, graph = build(op, op.samples[0])
    with pytest.raises(NotDifferentiable, match=op.name):
        gradients(builder, {graph.outputs["y0"]: graph.inputs[0]}, graph.inputs)


@pytest.mark.parametrize("op, sample", ERRORS)
def test_refusal_says_what_is_wrong(op: Op, sample: Sample):
    with pytest.raises(TypeRuleError, match=sample.error) as raised:
        build(op, sample)
    assert raised.value.found or "needs" in sample.error
