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


def feed_of(device: ModuleType, names: tuple[str, ...] = ("loss",), **totals: tuple[tuple[int, ...], str]):
    generator = np.random.default_rng(0)
    arrays = {
        "image": generator.integers(0, 256, (11, 2, 3), np.uint8),
        "weight": generator.normal(size=11).astype(np.float32),
        "label": generator.integers(0, 9, (11, 1), np.int32),
    }
    return device.Feed(arrays, names, totals), arrays


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
            assert feed.results(raising=True) == ([4 * float(loss), 4 * 0.7, 12.0], {})
    assert feed.position[0] == 11
    np.testing.assert_array_equal(feed.results(raising=False)[0], [np.nan, 4 * 0.7 + 4 * 0.7 + 3 * 0.7, 33])
    with pytest.raises(device.NotFinite) as caught:
        feed.results(raising=True)
    assert (caught.value.step, caught.value.loss) == (2, -np.inf)
    feed.begin(np.arange(11), 4)
    assert feed.results(raising=True) == ([0, 0, 0], {})


def test_totals(device: ModuleType) -> None:
    """Of any shape, in f64: sums, the largest and the smallest; NaN stays NaN."""
    feed, _ = feed_of(device, hits=((2, 3), "sum"), most=((2,), "max"), least=((), "min"))
    for _ in range(2):
        feed.begin(np.arange(11), 4)
        values = np.random.default_rng(2).normal(size=(3, 2, 3)).astype(np.float32)
        outputs = {"loss": np.zeros((), np.float32), "hits": np.zeros((2, 3), np.float32)}
        outputs |= {"most": np.zeros(2, np.float64), "least": np.zeros((), np.float32)}
        for value, count in zip(values, (4, 4, 3), strict=True):
            outputs["hits"][...], outputs["most"][...] = value, [value[0, 0], np.nan if count == 4 else 1]
            outputs["least"][...] = value[1, 1]
            feed.add_up(outputs, count)()
        _, totals = feed.results(raising=True)
        np.testing.assert_array_equal(totals["hits"], values.astype(np.float64).sum(0))
        np.testing.assert_array_equal(totals["most"], [values[:, 0, 0].max(), np.nan])
        np.testing.assert_array_equal(totals["least"], values[:, 1, 1].min())
        assert {name: total.shape for name, total in totals.items()} == {"hits": (2, 3), "most": (2,), "least": ()}


def test_the_kernels_are_cuda(device: ModuleType) -> None:
    combining = [device.combining_kernel("float32", how) for how in ("sum", "max", "min")]
    for kernel in (*combining, device.gather_kernel("uint8"), device.summing_kernel(("float32", "float64", "int32"))):
        assert machine_code(render(kernel.kernel))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_plain_products(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "ElementwiseKernel", ElementwiseKernel)
    a, b = (np.random.default_rng(0).normal(size=shape).astype(dtype) for shape in ((5, 4), (4, 3)))
    kernel, product = cuda.plain_kernel.__wrapped__(dtype), np.full((5, 3), np.nan, dtype)
    kernel(a, b, 3, 4, product, size=15)
    np.testing.assert_allclose(product, a @ b, rtol=1e-5)
    assert machine_code(render(kernel.kernel, (2, 2, 2)))
