"""The kernels that feed a device: batches gathered from examples that lie there, and the sums over them."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

import runtime
from tests.gpu import cupy_or_skip  # noqa: F401
from tests.gpu.emulation import cuda
from tests.gpu.emulation.launches import in_order


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """runtime.device_program on the emulated device."""
    monkeypatch.setitem(sys.modules, "runtime.cuda", cuda)
    monkeypatch.setattr(runtime, "cuda", cuda, raising=False)
    spec = importlib.util.find_spec("runtime.device_program")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def feed_of(device: ModuleType, names: tuple[str, ...] = ("loss",)):
    generator = np.random.default_rng(0)
    arrays = {
        "image": generator.integers(0, 256, (11, 2, 3), np.uint8),
        "weight": generator.normal(size=11).astype(np.float32),
        "label": generator.integers(0, 9, (11, 1), np.int32),
    }
    return device.Feed(arrays, names), arrays


@pytest.mark.parametrize("order", [0, 1])
def test_gather(order: int, device: ModuleType) -> None:
    feed, arrays = feed_of(device)
    taken = np.random.default_rng(1).permutation(11)
    feed.begin(taken, 4)
    batches = {name: np.zeros((4, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
    with in_order(order):
        for position in (0, 4, 7):
            feed.position[0] = position
            for name, batch in batches.items():
                feed.gather(name, batch)()
                np.testing.assert_array_equal(batch, arrays[name][taken[position : position + 4]])


def test_sums(device: ModuleType) -> None:
    """In f64, each batch by its size; and the first loss that is no number, with its step."""
    feed, _ = feed_of(device, ("loss", "accuracy", "count"))
    feed.begin(np.arange(11), 4)
    losses = [np.float32(0.1), np.float32(-np.inf), np.float32(np.nan)]
    outputs = {"loss": np.zeros((), np.float32), "accuracy": np.array(0.7), "count": np.array(3, np.int32)}
    for loss, count in zip(losses, (4, 4, 3), strict=True):
        outputs["loss"][...] = loss
        feed.add_up(outputs, count)()
        if loss is losses[0]:
            assert feed.totals(raising=True) == [4 * float(loss), 4 * 0.7, 12.0]
    assert feed.position[0] == 11
    np.testing.assert_array_equal(feed.totals(raising=False), [np.nan, 4 * 0.7 + 4 * 0.7 + 3 * 0.7, 33])
    with pytest.raises(device.NotFinite) as caught:
        feed.totals(raising=True)
    assert (caught.value.step, caught.value.loss) == (2, -np.inf)
    feed.begin(np.arange(11), 4)
    assert feed.totals(raising=True) == [0, 0, 0]
