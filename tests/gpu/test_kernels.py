"""Generated code for the GPU against the float64 interpreter: every sample of every op, on the host, in two orders."""

from __future__ import annotations

import pytest

from compiler.diagnostics import UserError
from compiler.ir.interpreter import interpret
from compiler.ir.op import Op, Sample
from tests.gpu.emulation.launches import in_order
from tests.gpu.running import OnDevice, on_device
from tests.gpu.samples import BATCH, computed_on_the_host, draw_inputs, graph_of
from tests.gpu.sources import compile_all, joined, sources_of
from tests.targets.test_against_interpreter import SAMPLES, assert_close

TOGETHER = 32  # kernels per call of NVRTC
Compiled = dict[tuple[str, int], OnDevice | Exception]  # by op and id of the sample, which several ops may share


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest, emulated: None) -> Compiled:
    """The samples that are going to run, generated before any of them runs, so that g++ compiles them at once."""
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
    if computed_on_the_host(op, sample):
        assert isinstance(run, UserError)
        return
    if isinstance(run, Exception):
        raise run
    inputs = draw_inputs(op, sample)
    expected = interpret(graph_of(op, sample), inputs, BATCH)
    for order in (0, 1):
        with in_order(order):
            assert_close(run(inputs), expected)


def test_every_kernel_is_cuda(compiled: Compiled):
    runs = [run for run in compiled.values() if isinstance(run, OnDevice)]
    sources = sorted({source for run in runs for source in sources_of(run.run)})
    compile_all(joined(sources[i : i + TOGETHER]) for i in range(0, len(sources), TOGETHER))
