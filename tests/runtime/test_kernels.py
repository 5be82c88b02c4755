"""Kernels against the references of the ops in float64, at sizes that cover all ways of dividing the work."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from compiler.ops import OPS
from runtime.cpu import kernels
from runtime.cpu.kernels import convolution, depthwise
from runtime.cpu.kernels.products import partial_sums, piece
from runtime.cpu.kernels.windows import strided
from runtime.cpu.threads import together
from runtime.errors import IndexOutside
from tests.programs import MODELS, compiled_model, initialized, values_for

BATCH_LAST = (3, 1, 2, 0)  # memory layout of images
POISON = np.float32(np.nan)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def images(*shape: int, order: tuple[int, ...] = BATCH_LAST, dtype: str = "f4") -> np.ndarray:
    """Random images [N, H, W, C] with an order of axes in memory."""
    lying = rng().normal(size=[shape[axis] for axis in order]).astype(dtype)
    return lying.transpose(np.argsort(order))


def like(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """An array with the memory layout of another; its floats are NaN."""
    result = np.empty_like(array, dtype=dtype)
    result.fill(POISON if result.dtype.kind == "f" else 7)
    return result


def scratch(*shape: int, dtype: str = "f4") -> np.ndarray:
    return np.full(shape, POISON, dtype)


def assert_close(found: np.ndarray, expected: np.ndarray, scale: float = 1e-5) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=scale * np.abs(expected).max(initial=1.0))


def on_threads(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """`together` uses all threads there are; `count` is only the number of parts that work is divided into."""
    monkeypatch.setattr("runtime.cpu.threads.thread_count", lambda: count)


# Products -------------------------------------------------------------------------------------------------------------

PRODUCTS = [  # rows, depth, columns
    (3, 4, 5), (20_011, 25, 24), (24, 25, 20_011), (8_192, 48, 24), (128, 784, 10), (3_584, 28, 512), (128, 128, 512),
    (25, 40_003, 24), (28, 3_584, 512), (512, 3_584, 28), (31, 5_000, 47), (1, 70_000, 17), (300, 300, 300), (0, 3, 2),
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", PRODUCTS)
def test_matmul(sizes: tuple[int, int, int], threads: int, monkeypatch: pytest.MonkeyPatch):
    on_threads(monkeypatch, threads)
    rows, depth, columns = sizes
    a, b = rng().normal(size=(rows, depth)).astype("f4"), rng().normal(size=(depth, columns)).astype("f4")
    room = partial_sums(rows, columns, depth)
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            for order in ("C", "F"):
                out = np.full((rows, columns), POISON, "f4", order=order)  # type: ignore[call-overload]
                kernels.matmul(left, right, out=out, scratch=None if room is None else scratch(*room))
                assert_close(out, a.astype("f8") @ b.astype("f8"))


def test_long_sums_and_thin_products_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch):
    for rows, depth, columns in ((25, 40_003, 24), (20_011, 25, 24), (28, 3_584, 512)):
        a, b = rng().normal(size=(rows, depth)).astype("f4"), rng().normal(size=(depth, columns)).astype("f4")
        results = []
        for threads in (1, 2, 5):
            on_threads(monkeypatch, threads)
            room = partial_sums(rows, columns, depth)
            out = np.empty((rows, columns), "f4")
            product = lambda out=out, a=a, b=b, room=room: kernels.matmul(  # noqa: E731
                a, b, out=out, scratch=None if room is None else scratch(*room)
            )
            together(product) if threads == 5 else product()  # the last one inside of a group
            results.append(out)
        assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_pieces_cover_a_length_and_stay_small():
    for length in (1, 48, 1000, 73_728):
        for others in (1, 600, 7_840, 14_336, 20_833):
            size = piece(length, others)
            assert size > 0 and size % 32 == 0 and (size * others <= 1_000_000 or size == 32)
    assert piece(8_192, 28_800) == 0


@pytest.mark.parametrize(
    "shapes",
    [
        ((5, 40, 30), (30, 20)),
        ((2, 3, 40, 30), (3, 30, 20)),
        ((4, 200, 300), (300, 250)),
        ((2, 3, 5, 30), (1, 1, 30, 20)),
        ((5, 30), (4, 30, 20)),
        ((3, 1, 30), (30, 20)),
        ((0, 4, 30), (30, 20)),
        ((3, 4, 0), (2, 1, 0, 5)),
    ],
)
def test_matmul_of_stacks_in_any_layout(shapes: Any, monkeypatch: pytest.MonkeyPatch):
    on_threads(monkeypatch, 2)
    a, b = (rng().normal(size=shape).astype("f4") for shape in shapes)
    turned = np.ascontiguousarray(a.transpose(*range(1, a.ndim), 0)).transpose(a.ndim - 1, *range(a.ndim - 1))
    for left in (a, turned):
        for order in ("C", "F"):
            out = np.full(np.matmul(a, b).shape, POISON, "f4", order=order)  # type: ignore[call-overload]
            kernels.matmul(left, b, out=out)
            assert_close(out, a.astype("f8") @ b.astype("f8"))


def test_a_stack_times_one_matrix_is_one_product(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.cpu.kernels.products.matmul_stacks", None)
    batch_last = rng().normal(size=(30, 4, 6)).astype("f4").transpose(1, 2, 0)
    for a in (rng().normal(size=(2, 4, 6, 30)).astype("f4"), batch_last):
        out = np.empty((*a.shape[:-1], 20), "f4")
        b = rng().normal(size=(30, 20)).astype("f4")
        kernels.matmul(a, b, out=out)
        assert_close(out, a.astype("f8") @ b.astype("f8"))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), BATCH_LAST, (1, 2, 3, 0)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2), (3,), (0, 1, 2, 3)])
def test_sum_of_products(order: tuple[int, ...], axes: tuple[int, ...]):
    a, b = images(4, 5, 6, 3, order=order), images(4, 5, 6, 3, order=order)[::-1]
    for other in (b, np.ascontiguousarray(b)):
        expected = (a.astype("f8") * other).sum(axes)
        out = np.empty(expected.shape, "f4")
        kernels.sum_of_products(a, other, out=out, axes=axes)
        assert_close(out, expected)


# Convolutions ---------------------------------------------------------------------------------------------------------

CONVOLUTIONS = [  # images, kernel, stride, dilation
    ((128, 12, 12, 24), (5, 5, 24, 48), (1, 1), (1, 1)),
    ((3, 9, 8, 2), (3, 2, 2, 5), (2, 1), (1, 2)),
    ((130, 12, 9, 1), (5, 3, 1, 24), (1, 2), (1, 1)),
    ((70, 7, 7, 40), (3, 3, 40, 160), (1, 1), (2, 2)),
    ((1, 14, 14, 64), (3, 3, 64, 47), (1, 1), (1, 1)),
    ((5, 6, 6, 600), (3, 3, 600, 16), (2, 2), (1, 1)),
    ((0, 5, 5, 3), (2, 2, 3, 4), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("layout", ["batch last", "row major", "f64"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("size", "kernel", "stride", "dilation"), CONVOLUTIONS)
def test_convolution(
    size: Any, kernel: Any, stride: Any, dilation: Any, threads: int, layout: str, monkeypatch: pytest.MonkeyPatch
):
    on_threads(monkeypatch, threads)
    dtype, order = "f8" if layout == "f64" else "f4", (0, 1, 2, 3) if layout == "row major" else BATCH_LAST
    steps, plain = {"stride": stride, "dilation": dilation}, {"padding": ((0, 0), (0, 0)), "groups": 1}
    x, w = images(*size, order=order, dtype=dtype), rng().normal(size=kernel).astype(dtype)
    y = OPS["conv2d"].reference(x.astype("f8"), w.astype("f8"), **steps, **plain)
    dy = images(*y.shape, order=order, dtype=dtype)
    dx = OPS["conv2d_input_grad"].reference(dy.astype("f8"), w.astype("f8"), input_size=size[1:3], **steps, **plain)
    dw = OPS["conv2d_filter_grad"].reference(x.astype("f8"), dy.astype("f8"), kernel=kernel[:2], **steps, **plain)
    depth = int(np.prod(kernel[:3]))
    rooms = [convolution.conv2d_scratch(depth), convolution.conv2d_grad_scratch(depth, kernel[3], kernel[2])]
    forward, backward = (scratch(room, dtype=dtype) for room in rooms)
    found_y, found_dx, found_dw = like(dy), like(x), like(w)
    kernels.conv2d(x, w, out=found_y, scratch=forward, **steps)
    kernels.conv2d_input_grad(dy, w, out=found_dx, scratch=backward, **steps)
    kernels.conv2d_filter_grad(x, dy, out=found_dw, scratch=backward, **steps)
    for found, expected in ((found_y, y), (found_dx, dx), (found_dw, dw)):
        assert_close(found, expected)


DEPTHWISE = [  # images, kernel with outputs to a channel, stride, dilation
    ((128, 12, 12, 24), (5, 5), 1, (1, 1), (1, 1)),
    ((128, 12, 12, 24), (5, 5), 2, (1, 1), (1, 1)),
    ((300, 9, 8, 3), (3, 2), 3, (2, 1), (1, 2)),
    ((4, 11, 12, 5), (2, 3), 1, (3, 2), (2, 3)),
    ((0, 5, 5, 2), (3, 3), 1, (1, 1), (1, 1)),
]


@pytest.mark.parametrize("by_taps", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("size", "window", "filters", "stride", "dilation"), DEPTHWISE)
def test_depthwise_convolution(
    size: Any, window: Any, filters: int, stride: Any, dilation: Any, threads: int, by_taps: bool,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """Also with several outputs per channel, on several threads."""
    on_threads(monkeypatch, threads)
    channels = size[3]
    steps, plain = {"stride": stride, "dilation": dilation}, {"padding": ((0, 0), (0, 0)), "groups": channels}
    x, w = images(*size), rng().normal(size=(*window, 1, channels * filters)).astype("f4")
    y = OPS["conv2d"].reference(x.astype("f8"), w.astype("f8"), **steps, **plain)
    dy = images(*y.shape)
    dx = OPS["conv2d_input_grad"].reference(dy.astype("f8"), w.astype("f8"), input_size=size[1:3], **steps, **plain)
    dw = OPS["conv2d_filter_grad"].reference(x.astype("f8"), dy.astype("f8"), kernel=window, **steps, **plain)
    band = depthwise.reach(window, dilation) * size[2]
    matrix = filters * y.shape[2] * band
    rooms = [matrix, matrix + band * depthwise.MOST_IMAGES, 2 * matrix]
    spaces = [like(dy)] * 3 if by_taps else [scratch(channels, room).T for room in rooms]
    name = "_by_taps" if by_taps else ""
    found_y, found_dx, found_dw = like(dy), like(x), like(w)
    getattr(kernels, f"depthwise_conv2d{name}")(x, w, out=found_y, scratch=spaces[0], **steps)
    getattr(kernels, f"depthwise_conv2d_input_grad{name}")(dy, w, out=found_dx, scratch=spaces[1], **steps)
    getattr(kernels, f"depthwise_conv2d_filter_grad{name}")(x, dy, out=found_dw, scratch=spaces[2], **steps)
    for found, expected in ((found_y, y), (found_dx, dx), (found_dw, dw)):
        assert_close(found, expected)


# Pooling and windows --------------------------------------------------------------------------------------------------

WINDOWS = [  # window, stride, padding
    ((2, 2), (2, 2), ((0, 0), (0, 0))), ((3, 2), (1, 1), ((0, 0), (0, 0))), ((2, 2), (3, 2), ((0, 0), (0, 0))),
    ((3, 3), (2, 2), ((1, 1), (1, 1))), ((2, 2), (2, 2), ((1, 0), (0, 1))), ((20, 15), (1, 1), ((0, 0), (0, 0))),
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("order", [BATCH_LAST, (0, 1, 2, 3)])
@pytest.mark.parametrize(("window", "stride", "padding"), WINDOWS)
def test_pooling(window: Any, stride: Any, padding: Any, order: Any, threads: int, monkeypatch: pytest.MonkeyPatch):
    """With ties, infinite gradients that must not spread, and windows that overlap, leave gaps or reach outside."""
    on_threads(monkeypatch, threads)
    steps = {"window": window, "stride": stride, "padding": padding}
    x = np.round(images(40, 21, 16, 9, order=order))
    y, index = OPS["max_pool2d_with_index"].reference(x.astype("f8"), **steps)
    lying = images(*y.shape, order=order)
    found, largest, places = like(lying), like(lying), like(lying, index.dtype)
    kernels.max_pool2d(x, out=found, **steps)
    kernels.max_pool2d_with_index(x, out=(largest, places), scratch=like(places), **steps)
    assert np.array_equal(found, y) and np.array_equal(largest, y) and np.array_equal(places, index)
    dy = lying
    dy[0, 0, 0, 0], dy[-1, -1, -1, -1] = np.inf, np.nan
    dx = like(x)
    kernels.max_pool2d_route(places, dy, out=dx, scratch=like(dy), **steps)
    expected = OPS["max_pool2d_route"].reference(index, dy.astype("f8"), input_size=x.shape[1:3], **steps)
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_patches_and_fold(threads: int, monkeypatch: pytest.MonkeyPatch):
    on_threads(monkeypatch, threads)
    for stride, padding, dilation in (((1, 1), ((0, 0), (0, 0)), (1, 1)), ((2, 1), ((3, 1), (0, 2)), (2, 3))):
        steps = {"stride": stride, "padding": padding, "dilation": dilation}
        x = images(40, 12, 13, 20)
        expected = OPS["patches"].reference(x.astype("f8"), window=(3, 2), **steps)
        found, image = np.full(expected.shape, POISON, "f4"), like(x)
        kernels.patches(x, out=found, **steps)
        assert np.array_equal(found, expected)
        kernels.fold(found, out=image, **steps)
        assert_close(image, OPS["fold"].reference(expected, input_size=x.shape[1:3], **steps))


# The rest -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride, dilation", [((9, 1), (1, 1)), ((1, 9), (1, 1)), ((1, 1), (40, 1)), ((-3, 1), (1, 1))])
def test_no_kernel_leaves_its_arrays(stride: Any, dilation: Any):
    """As a forged entry of the cache could ask for."""
    x, w, y = (np.zeros(shape, np.float32) for shape in ((2, 8, 8, 3), (3, 3, 3, 4), (2, 6, 6, 4)))
    room = np.zeros(convolution.conv2d_grad_scratch(27, 4, 3) + convolution.conv2d_scratch(27), np.float32)
    for call in (
        lambda: kernels.conv2d(x, w, y, stride, dilation, room),
        lambda: kernels.conv2d_input_grad(y, w, x, stride, dilation, room),
        lambda: kernels.conv2d_filter_grad(x, y, w, stride, dilation, room),
    ):
        with pytest.raises(ValueError, match="leaves its array"):
            call()


def test_views_stay_in_their_array():
    array = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(strided(array, (2, 2), (32, 8)), array[:2, :2])
    assert np.array_equal(strided(array[::-1], (3,), (-32,)), array[::-1, 0])
    assert strided(array, (0, 99), (32, 8)).size == 0
    for shape, strides in (((4, 4), (32, 8)), ((3, 4), (40, 8)), ((2,), (-8,)), ((12,), (9,))):
        with pytest.raises(ValueError, match="leaves its array"):
            strided(array, shape, strides)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_is_not_selected_leaves_no_trace(dtype: str):
    x = np.array([np.nan, np.inf, -0.0, 1.5, np.nan, -np.inf], dtype)
    condition = np.array([False, False, True, True, True, False])
    kernels.select_or_zero(condition, x, out=x)
    np.testing.assert_array_equal(x, [0.0, 0.0, -0.0, 1.5, np.nan, 0.0])
    assert np.signbit(x[2]) and not np.signbit(x[5])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_erf_over_its_own_operand(order: tuple[int, ...]):
    from math import erf

    x = np.linspace(-6, 6, 60, dtype="f4").reshape(np.array([3, 4, 5])[list(order)]).transpose(np.argsort(order))
    expected = np.vectorize(erf)(x)
    kernels.erf(x, out=x, scratch=scratch(4, 3, 4, 5))
    np.testing.assert_allclose(x, expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_argmax_takes_the_first(axis: int):
    x = rng().integers(0, 3, (4, 5, 6)).astype("f4").transpose(2, 0, 1)
    expected = np.argmax(x, axis)
    out = np.empty(expected.shape, "i4")
    kernels.argmax(x, out=out, axis=axis, scratch=np.empty((1 + x.shape[axis], *out.shape), "i8"))
    assert np.array_equal(out, expected)


def test_iota_and_gather():
    numbers = np.empty(7, "i4")
    kernels.iota(out=numbers)
    assert np.array_equal(numbers, range(7))
    out = np.empty((3, 2), "f4")
    table = rng().normal(size=(7, 2)).astype("f4")
    kernels.gather(table, numbers[1::2], out=out, scratch=np.empty(3, "i8"))
    assert np.array_equal(out, table[1::2])


@pytest.mark.parametrize("model", MODELS)
def test_a_step_allocates_no_tensor(model: str):
    """NumPy allocates buffers of 8,192 elements to convert, and objects for views, but nothing of a tensor's size."""
    compiled = compiled_model(model)
    program, batch = initialized(compiled), compiled.manifest.settings.batch
    inputs = values_for(compiled.module["train_step"], batch)
    for name, view in program.inputs("train_step", batch).items():
        view[...] = inputs[name]
    for _ in range(2):
        program.run("train_step", batch)
    tracemalloc.start()
    try:
        program.run("train_step", batch)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        program.run("train_step", batch)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000
    assert peak - before < 250_000


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_check_index_finds_the_first_index_outside(dtype: type):
    """In any order of the axes in memory; it copies the indices."""
    limits = np.iinfo(dtype)
    for value in (3, 4, limits.max, limits.min if dtype is not np.uint8 else 200):
        indices = np.array([[0, 1, 2], [2, 1, 0]], dtype)
        indices[1, 1:] = value
        for given in (indices, indices.T.copy().T, np.asfortranarray(indices)[:, ::1]):
            out = np.zeros_like(given)
            found: tuple[int | None, ...] = ()
            try:
                kernels.check_index(given, out=out, size=3, place="m.nn:1:2", layer="embedding_1", each=3)
            except IndexOutside as error:
                found = (error.value, error.size, error.example)
            assert found == (value, 3, 1)
    inside = np.array([0, 2, 1], dtype)
    kernels.check_index(inside, out=(out := np.zeros_like(inside)), size=3, place="", layer="", each=1)
    assert out.tolist() == [0, 2, 1]
    kernels.check_index(inside[:0], out=out[:0], size=1, place="", layer="", each=1)
    kernels.check_index(0, out=(number := np.ones((), dtype)), size=1, place="", layer="", each=0)
    assert number == 0
