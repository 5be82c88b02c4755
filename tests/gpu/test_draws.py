"""Random numbers of prediction and evaluation on the emulated device: those of the CPU, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import Diagnostics
from compiler.driver import Compilation, compile_tree
from compiler.elaborate.library import with_imports
from compiler.language.parser import parse
from runtime.datasets.dataset import Split
from runtime.training.trainer import evaluate, predict
from tests.gpu.running import device_program_of
from tests.programs import initialized

ROWS = 45
BATCHES = (1, 7, 16)
TEXT = """
fn kept_on(x: f32[...]) { return where(random_uniform(shape(x)) < 0.5, x * 2, 0) }
model G(x: f32[B, 6]) {
  y = kept_on(x)
  z = transpose(random_uniform([4, B]), [1, 0])
  w = reshape(random_uniform([3 * B, 2]), [B, 6])
  v = x * random_uniform([6])
  return y, z, w, v
}
fn loss(y: f32[B, 6], z: f32[B, 4], w: f32[B, 6], v: f32[B, 6], target: f32[B, 1]) {
  return mean((sum(y * w + v, axes=1, keepdims=true) + sum(z, axes=1, keepdims=true) - target) ** 2)
}
train G { loss = loss; optimizer = SGD(lr=0.1); batch = 16 }
"""

pytestmark = pytest.mark.usefixtures("emulated")


def compiled(target: str) -> Compilation:
    diagnostics = Diagnostics()
    return compile_tree(with_imports(parse(TEXT, "draws.nn", diagnostics), diagnostics), target=target)


@pytest.mark.parametrize("graphs", [True, False])
def test_the_numbers_are_those_of_the_cpu(graphs: bool):
    there = compiled("cupy")
    host, device = initialized(compiled("numpy")), device_program_of(there.executable, there.manifest, graphs)
    device.initialize(0)
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    split = Split({"x": x, "target": np.zeros((ROWS, 1), np.float32)})
    for seed in (0, 7):
        expected = predict(host, {"x": x}, seed)
        for size in BATCHES:
            device.batch = size
            found = predict(device, {"x": x}, seed)
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array, err_msg=name)
            assert evaluate(device, split)["loss"] == pytest.approx(evaluate(host, split)["loss"], rel=1e-5)
        assert len(np.unique(expected["z"], axis=0)) == ROWS
