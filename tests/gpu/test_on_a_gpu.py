"""On a real GPU: products, copies and graphs of runtime/gpu/cuda.py, and whole runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from runtime.gpu import cuda
from tests.cli.conftest import place
from tests.gpu.commands import check_a_run, check_that_runs_continue

__all__ = ["place"]
pytestmark = pytest.mark.gpu

SHAPES = [
    ((1, 1), (1, 1)),
    ((5, 7), (7, 1)),
    ((128, 784), (784, 512)),
    ((28, 128, 28), (28, 400)),
    ((6, 4, 3), (6, 3, 5)),
    ((2, 1, 4, 3), (7, 3, 5)),
    ((4, 0), (0, 5)),
]


@pytest.fixture(autouse=True)
def device() -> None:
    cuda.check()


def on_device(array: np.ndarray) -> Any:
    view = cuda.view(cuda.zeros(max(array.nbytes, 1)), 0, array.dtype.type, array.shape)
    if array.size:
        cuda.upload(view, array)
    return view


def random(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.fixture(params=["cublas", "own kernels"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "cublas":
        assert cuda.products().blas is not None, "there is no cuBLAS"
    else:
        monkeypatch.setattr(cuda.products(), "blas", None)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [*product((False, True), repeat=2)])
def test_products(transposed: tuple[bool, bool], dtype: str) -> None:
    for shapes in SHAPES:
        operands = []
        for seed, (shape, swapped) in enumerate(zip(shapes, transposed, strict=True)):
            stored = (*shape[:-2], shape[-1], shape[-2]) if swapped else shape
            host = random(*stored, dtype=dtype, seed=seed)
            there = on_device(host)
            operands.append([each.swapaxes(-1, -2) if swapped else each for each in (host, there)])
        (a, a_there), (b, b_there) = operands
        out = on_device(np.full_like(a @ b, np.nan))
        cuda.matmul(a_there, b_there, out)
        np.testing.assert_allclose(cuda.download(out), a @ b, rtol=1e-4, atol=1e-4)


def test_copies() -> None:
    array = random(6, 5, 4)
    there, out = on_device(array), on_device(np.zeros((4, 6, 5), np.float32))
    cuda.copy(out, there.transpose(2, 0, 1))
    np.testing.assert_array_equal(cuda.download(out), array.transpose(2, 0, 1))
    cuda.copy(out[1:3], there.transpose(2, 0, 1)[:2])
    np.testing.assert_array_equal(cuda.download(out[1:3]), array.transpose(2, 0, 1)[:2])
    for (step,), expected in zip(cuda.steps(there, reverse=True), array[::-1], strict=True):
        np.testing.assert_array_equal(cuda.download(step), expected)


def branches() -> tuple[Callable[[], None], Any]:
    """Work of two branches with a product in each, which changes its own input; and the array of its result."""
    x, w = on_device(random(64, 64)), on_device(random(64, 64, seed=1) / 8)
    left, right, total = (on_device(np.zeros((64, 64), np.float32)) for _ in range(3))
    add = cuda.ElementwiseKernel(
        "raw float32 a, raw float32 b", "raw float32 y", "y[i] = tanhf(a[i] + b[i]);", "add_branches"
    )

    def work() -> None:
        cuda.together(lambda: cuda.matmul(x, w, left), lambda: cuda.matmul(x.T, w.T, right))
        add(left, right, total, size=64 * 64)
        cuda.copy(x, total)

    return work, total


def test_a_graph_does_the_same_bit_for_bit() -> None:
    """Many times over, without allocating."""
    import cupy

    (eager, expected), (captured, found) = branches(), branches()
    for _ in range(101):
        eager()
    captured()
    graph = cuda.capture(captured)
    used = cupy.get_default_memory_pool().total_bytes()
    for _ in range(100):
        graph.launch()
    np.testing.assert_array_equal(cuda.download(found), cuda.download(expected))
    assert cupy.get_default_memory_pool().total_bytes() == used
    assert np.isfinite(cuda.download(found)).all() and cuda.download(found).any()


def test_too_much_memory() -> None:
    from runtime.errors import RuntimeUserError

    with pytest.raises(RuntimeUserError, match="the GPU does not have enough memory"):
        cuda.zeros(cuda.free_bytes() * 2)


@pytest.mark.usefixtures("place")
def test_a_run() -> None:
    check_a_run()


@pytest.mark.usefixtures("place")
def test_runs_continue() -> None:
    check_that_runs_continue()
