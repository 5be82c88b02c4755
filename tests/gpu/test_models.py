"""The five models as code for the GPU, on the host: training, evaluation and prediction come out as with NumPy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from compiler.profile import with_clock
from runtime.program import Arrays, Program
from tests.gpu import poison
from tests.gpu.cupy_or_skip import cupy  # noqa: F401
from tests.gpu.emulation import cuda
from tests.gpu.emulation.launches import KernelError, in_order
from tests.gpu.running import BATCH, compile_all, compiled, device_program, examples, host_program, sources_of
from tests.programs import MODELS, TRAINED_GRAPHS

EXAMPLES = 2 * BATCH + 3  # the last batch is smaller

pytestmark = pytest.mark.usefixtures("emulated")


def train(program: Program) -> dict[str, np.ndarray]:
    """Trains on a few batches; all that can be seen afterwards, by name."""
    arrays = examples(program.manifest, EXAMPLES)
    order = np.random.default_rng(1).permutation(EXAMPLES)
    program.initialize(seed=3)
    found = {f"trained {k}": v for k, v in program.runner("train_step", arrays).means(order, BATCH).items()}
    found |= {f"tested {k}": v for k, v in program.runner("evaluate", arrays).means(order, BATCH).items()}
    found |= {name: np.array(variable) for name, variable in program.variables().items()}
    inputs = {each.name: arrays[each.name] for each in program.manifest.inputs}
    for count, outputs in program.runner("predict", inputs).batches(order, BATCH):
        found |= {f"{name} of {count}": np.array(output) for name, output in outputs.items()}
    return {name: np.asarray(value) for name, value in found.items()}


def assert_close(found: Arrays, expected: Arrays) -> None:
    """f32 against f32, after a few steps."""
    assert set(found) == set(expected)
    for name, reference in expected.items():
        scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
        np.testing.assert_allclose(found[name], reference, rtol=1e-4, atol=3e-5 * scale, err_msg=name)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("model", MODELS)
def test_training(model: str, graphs: bool, order: int):
    with in_order(order):
        assert_close(train(device_program(model, graphs=graphs)), train(host_program(model)))
