"""Generated code for the GPU against the float64 interpreter: every sample of every op, on the host, in two orders."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest

from compiler.diagnostics import UserError
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.interpreter import interpret
from compiler.ops.op import Op, Sample
from tests.codegen.test_against_interpreter import SAMPLES, assert_close
from tests.gpu.cupy_or_skip import cupy  # noqa: F401
from tests.gpu.emulation.launches import in_order
from tests.gpu.running import OnDevice, compile_all, on_device, sources_of

BATCH = 2
Compiled = dict[tuple[str, int], OnDevice | Exception]  # by op and id of the sample, which several ops may share


def graph_of(op: Op, sample: Sample) -> Graph:
    graph = Graph("sample")
    builder = Builder(graph)
    operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
    builder.emit(op.name, operands, sample.make_attributes())
    graph.outputs = {f"y{i}": result for i, result in enumerate(graph.nodes[0].results)}
    return graph


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest, emulated: None) -> Compiled:
    """The samples that are going to run, made before any of them runs: g++ then compiles them at once."""
    found: Compiled = {}
    for item in request.session.items:
        if item.parent is not request.node or item.originalname != "test_op_sample":
            continue
        op, sample = item.callspec.params["op"], item.callspec.params["sample"]
        try:
            found[op.name, id(sample)] = on_device(graph_of(op, sample), BATCH)
        except Exception as error:  # the test of this sample raises it
            found[op.name, id(sample)] = error
    return found


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_op_sample(op: Op, sample: Sample, compiled: Compiled):
    run = compiled[op.name, id(sample)]
    if isinstance(run, UserError):  # what initial values are drawn from
        assert op.name == "orthogonalize" or sample.attributes["distribution"] != "uniform"
        return
    if isinstance(run, Exception):
        raise run
    generator = np.random.default_rng(crc32(f"{op.name} {sample.operands}".encode()))
    inputs = {f"x{i}": operand.draw(generator, BATCH) for i, operand in enumerate(sample.operands)}
    inputs = {name: x.astype(np.float32).astype(np.float64) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    expected = interpret(graph_of(op, sample), inputs, BATCH)
    for order in (0, 1):
        with in_order(order):
            assert_close(run(inputs), expected)


def test_every_kernel_is_cuda(compiled: Compiled):
    runs = [run for run in compiled.values() if isinstance(run, OnDevice)]
    compile_all(source for run in runs for source in sources_of(run.run))
