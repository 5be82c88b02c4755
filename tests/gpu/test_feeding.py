"""Kernels of the runtime itself: batches gathered from examples on the device, the sums over them, products."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from runtime.gpu import cuda
from tests.gpu.cupy_inside import machine_code, render
from tests.gpu.emulation.kernels import ElementwiseKernel
from tests.gpu.emulation.launches import in_order


@pytest.fixture
def device(emulated: None) -> ModuleType:
    """runtime.gpu.device_program on the emulated device."""
    return importlib.import_module("runtime.gpu.device_program")


def feed_of(device: ModuleType, names: tuple[str, ...] = ("loss",)):
    generator = np.random.default_rng(0)
    arrays = {
        "image": generator.integers(0, 256, (11, 2, 3), np.uint8),
        "weight": generator.normal(size=11).astype(np.float32),
        "label": generator.integers(0, 9, (11, 1), np.int32),
    }
    return device.Feed(arrays, names, {}), arrays


@pytest.mark.parametrize("order", [0, 1])
def test_gather(order: int, device: ModuleType) -> None:
    feed, arrays = feed_of(device)
    shuffled = np.random.default_rng(1).permutation(11)
    feed.begin(shuffled, 4)
    batches = {name: np.zeros((4, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
    with in_order(order):
        for position in (0, 4, 7):
            feed.position[0] = position
            for name, batch in batches.items():
                feed.gather(name, batch)()
                np.testing.assert_array_equal(batch, arrays[name][shuffled[position : position + 4]])


def test_sums(device: ModuleType) -> None:
    """In f64, each batch weighted by its size; and the first loss that is not finite, with its step."""
    feed, _ = feed_of(device, ("loss", "accuracy", "count"))
    feed.begin(np.arange(11), 4)
    losses = [np.float32(0.1), np.float32(-np.inf), np.float32(np.nan)]
    outputs = {"loss": np.zeros((), np.float32), "accuracy": np.array(0.7), "count": np.array(3, np.int32)}
    for loss, count in zip(losses, (4, 4, 3), strict=True):
        outputs["loss"][...] = loss
        feed.add_up(outputs, count)()
        if loss is losses[0]:
            assert feed.totals("train_step", raising=True) == [4 * float(loss), 4 * 0.7, 12.0]
    assert feed.position[0] == 11
    np.testing.assert_array_equal(feed.totals("train_step", raising=False), [np.nan, 4 * 0.7 + 4 * 0.7 + 3 * 0.7, 33])
    with pytest.raises(device.NotFinite) as caught:
        feed.totals("train_step", raising=True)
    assert (caught.value.step, caught.value.loss) == (2, -np.inf)
    feed.begin(np.arange(11), 4)
    assert feed.totals("train_step", raising=True) == [0, 0, 0]


def test_the_kernels_are_cuda(device: ModuleType) -> None:
    for kernel in (device.gather_kernel("uint8"), device.summing_kernel(("float32", "float64", "int32"))):
        assert machine_code(render(kernel.kernel))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_plain_products(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "ElementwiseKernel", ElementwiseKernel)
    a, b = (np.random.default_rng(0).normal(size=shape).astype(dtype) for shape in ((5, 4), (4, 3)))
    kernel, product = cuda.plain_kernel.__wrapped__(dtype), np.full((5, 3), np.nan, dtype)
    kernel(a, b, 3, 4, product, size=15)
    np.testing.assert_allclose(product, a @ b, rtol=1e-5)
    assert machine_code(render(kernel.kernel, (2, 2, 2)))
