"""On a real GPU: ops and models against NumPy, graphs against launches one by one; nothing is allocated in a replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.diagnostics import UserError
from compiler.ir.interpreter import interpret
from compiler.ir.op import Op, Sample
from runtime.feeding import runner_of
from runtime.gpu import cuda
from runtime.program import Arrays
from tests.gpu.running import (
    BATCH,
    assert_trained_alike,
    device_program,
    examples,
    on_device,
    train,
    trained_on_host,
)
from tests.gpu.samples import BATCH as SAMPLE_BATCH
from tests.gpu.samples import computed_on_the_host, draw_inputs, graph_of
from tests.programs import MODELS
from tests.targets.test_against_interpreter import SAMPLES, assert_close

pytestmark = pytest.mark.gpu

STEPS = 100


@pytest.fixture(autouse=True)
def device() -> None:
    cuda.check()


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_op_sample(op: Op, sample: Sample):
    if computed_on_the_host(op, sample):
        with pytest.raises(UserError):
            on_device(graph_of(op, sample), SAMPLE_BATCH)
        return
    inputs, run = draw_inputs(op, sample), on_device(graph_of(op, sample), SAMPLE_BATCH)
    assert_close(run(inputs), interpret(graph_of(op, sample), inputs, SAMPLE_BATCH))


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("model", MODELS)
def test_training(model: str, graphs: bool):
    found = train(model, device_program(model, graphs))
    assert_trained_alike(found, trained_on_host(model), tolerance=5e-3)


def train_for_long(model: str, graphs: bool) -> Arrays:
    program = device_program(model, graphs)
    program.initialize(seed=3)
    runner = runner_of(program, "train_step", examples(model, STEPS * BATCH))
    means = runner.means(np.arange(STEPS * BATCH), BATCH)
    return {**program.variables(), **{f"mean {name}": np.array(mean) for name, mean in means.items()}}


@pytest.mark.parametrize("model", MODELS)
def test_graphs_give_the_same_bits(model: str):
    eager, replayed, again = (train_for_long(model, graphs) for graphs in (False, True, True))
    for name, reference in eager.items():
        assert np.array_equal(replayed[name], reference, equal_nan=True), name
        assert np.array_equal(again[name], reference, equal_nan=True), name


@pytest.mark.parametrize("model", MODELS)
def test_a_replay_allocates_nothing(model: str):
    import cupy

    class Allocations(cupy.cuda.MemoryHook):
        """Counts allocations from the device and from CuPy's pool."""

        name = "allocations"
        count = 0

        def alloc_preprocess(self, **kwargs: Any) -> None:
            self.count += 1

        def malloc_preprocess(self, **kwargs: Any) -> None:
            self.count += 1

    program, pool = device_program(model), cupy.get_default_memory_pool()
    program.initialize(seed=3)
    runner, order = runner_of(program, "train_step", examples(model, STEPS * BATCH)), np.arange(STEPS * BATCH)
    runner.means(order, BATCH)  # compiles kernels, makes workspaces and captures the graphs
    before = pool.used_bytes(), pool.total_bytes()
    with Allocations() as allocations:
        runner.means(order, BATCH)
    assert allocations.count == 0
    assert before == (pool.used_bytes(), pool.total_bytes())
