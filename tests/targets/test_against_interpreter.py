"""Generated NumPy code against the float64 interpreter: every sample of every op, every graph of every model."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import numpy as np
import pytest

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays, interpret
from compiler.ir.op import VIEW, Op, Sample
from compiler.ops import OPS
from compiler.targets.numpy.ops import EMITTERS
from compiler.targets.shared.python_text import VIEWS
from tests.delicate import DELICATE, delicate_graph
from tests.programs import (
    BATCH,
    MODELS,
    TRAINED_GRAPHS,
    compiled_model,
    initialized,
    run_graph,
    run_program,
    run_step,
    values_for,
)

SAMPLES = [pytest.param(op, s, id=f"{op.name}-{i}") for op in OPS.values() for i, s in enumerate(op.samples)]


def assert_close(found: Mapping[str, np.ndarray], expected: Arrays, scale: float = 1e-5) -> None:
    """float32 against float64: rtol 1e-4, and `scale` of the largest element, the precision of float32."""
    for name, reference in expected.items():
        array = found[name]
        assert array.shape == reference.shape, name
        assert np.array_equal(np.isnan(array), np.isnan(reference)), f"{name}: NaN in other places"
        if array.dtype.kind != "f":
            assert np.array_equal(array, reference), name
            continue
        finite = reference[np.isfinite(reference)]
        atol = scale * max(1.0, float(np.abs(finite).max(initial=0.0)))
        np.testing.assert_allclose(array, reference, rtol=1e-4, atol=atol, err_msg=name)


def test_every_op_is_emitted():
    assert set(EMITTERS) | {"scan", "fused", "slice", "transpose", "flip", "max_pool2d_grad"} == set(OPS)
    assert set(VIEWS) == {op.name for op in OPS.values() if VIEW in op.traits}


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_op_sample(op: Op, sample: Sample):
    graph = Graph("sample")
    builder = Builder(graph)
    operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
    builder.emit(op.name, operands, sample.make_attributes())
    graph.outputs = {f"y{i}": result for i, result in enumerate(graph.nodes[0].results)}
    generator = np.random.default_rng(crc32(f"{op.name} {sample.operands}".encode()))
    inputs = {f"x{i}": operand.draw(generator, 2) for i, operand in enumerate(sample.operands)}
    inputs = {name: x.astype(np.float32).astype(np.float64) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    expected = interpret(graph, inputs, 2)
    assert_close(run_graph(graph, inputs, 2, poison=True), expected)


@pytest.mark.parametrize("name", TRAINED_GRAPHS)
@pytest.mark.parametrize("model", MODELS)
def test_model(model: str, name: str):
    compiled = compiled_model(model)
    program = initialized(compiled, seed=3)
    inputs = values_for(compiled.module[name], BATCH) | {k: np.array(v) for k, v in program.variables().items()}
    expected = interpret(compiled.module[name], inputs, BATCH)
    assert_close(run_program(program, name, inputs, BATCH), expected)


@pytest.mark.parametrize("model", MODELS)
def test_initial_values(model: str):
    """Those of the given seed, and not of another."""
    compiled = compiled_model(model)
    expected = interpret(compiled.module["init"], {"seed": 3})
    assert_close(initialized(compiled, seed=3).variables(), expected)


@pytest.mark.parametrize("fill", [0x00, 0xFF])
@pytest.mark.parametrize("name", DELICATE)
def test_delicate_graph(name: str, fill: int):
    """Bytes that are read before they are written are zero or NaN."""
    graph = delicate_graph(name)
    inputs = values_for(graph, BATCH)
    assert_close(run_step(graph, inputs, BATCH, fill), interpret(graph, inputs, BATCH))


@pytest.mark.parametrize("model", MODELS)
def test_smaller_batch_uses_the_same_program(model: str):
    compiled = compiled_model(model)
    program = initialized(compiled)
    graph = compiled.module["evaluate"]
    variables = {k: np.array(v) for k, v in program.variables().items()}
    for batch in (5, 1, compiled.manifest.settings.batch):
        inputs = values_for(graph, batch) | variables
        assert_close(run_program(program, "evaluate", inputs, batch), interpret(graph, inputs, batch))
