"""Convolutions and products as CUDA kernels, run on the host in two orders, against the float64 references of ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node
from compiler.ir.types import NUMPY_NAMES, at_batch, parse_type
from compiler.ops import OPS
from compiler.ops.convolution import ALL_AT_ONCE
from compiler.targets.cupy import convolutions
from compiler.targets.cupy.convolutions import (
    SLICES,
    THREAD_COLUMNS,
    TILE_ROWS,
    Epilogue,
    ProductKernel,
    product_kernel,
    scratch_of,
)
from runtime.gpu import gemm
from tests.gpu.cupy_inside import machine_code
from tests.gpu.emulation.kernels import RawKernel
from tests.gpu.emulation.launches import in_order

ORDERS = (0, 1)
SOME = 17  # images: a multiple of no tile size
PADDED = {"padding": ((2, 2), (2, 2))}
STRIDED = {"stride": (2, 2), "padding": ((1, 1), (1, 1))}


@dataclass(frozen=True)
class Convolution:
    """A convolution and both its adjoints."""

    name: str
    image: tuple[int, int, int]
    kernel: tuple[int, int, int]  # its rows and columns, filters
    attributes: dict[str, Any] = field(default_factory=dict)

    def node(self, op: str) -> Node:
        graph = Graph(self.name)
        builder = Builder(graph)
        *kernel, filters = self.kernel
        *size, channels = self.image
        x = builder.input("x", parse_type("f32[B,{},{},{}]".format(*self.image)), "input")
        depth = channels // self.attributes.get("groups", 1)
        w = builder.input("w", parse_type("f32[{},{},{},{}]".format(*kernel, depth, filters)), "param")
        y = builder.conv2d(x, w, **self.attributes)
        if op == "conv2d_input_grad":
            builder.conv2d_input_grad(y, w, input_size=tuple(size), **self.attributes)
        elif op == "conv2d_filter_grad":
            builder.conv2d_filter_grad(x, y, kernel=tuple(kernel), **self.attributes)
        return graph.nodes[-1]


CONVOLUTIONS = (
    Convolution("first", (28, 28, 1), (5, 5, 24)),
    Convolution("second", (12, 12, 24), (5, 5, 48)),
    Convolution("padded", (8, 8, 8), (5, 5, 16), PADDED),
    Convolution("pixel", (8, 8, 24), (1, 1, 48)),
    Convolution("depthwise", (12, 12, 24), (5, 5, 24), {"groups": 24}),
    Convolution("depthwise_wide", (6, 6, 40), (3, 3, 80), {"groups": 40, **STRIDED}),
    Convolution("strided", (9, 9, 12), (3, 3, 20), STRIDED),
    Convolution("dilated", (9, 9, 8), (3, 3, 8), {"dilation": (2, 2), **PADDED}),
    Convolution("grouped", (7, 7, 16), (3, 3, 24), {"groups": 2}),
    Convolution("odd", (7, 6, 9), (3, 2, 11), {**ALL_AT_ONCE, "groups": 1}),
    Convolution("many_filters", (4, 4, 12), (3, 3, 130)),
)
CONVOLUTION_OPS = ("conv2d", "conv2d_input_grad", "conv2d_filter_grad")


def node_of(op: str, types: Sequence[str], attributes: dict[str, Any]) -> Node:
    graph = Graph("sample")
    builder = Builder(graph)
    builder.emit(op, [builder.input(f"x{i}", parse_type(type), "input") for i, type in enumerate(types)], attributes)
    return graph.nodes[0]


@cache
def nodes() -> dict[str, Node]:
    """Every sample of the ops, and the convolutions above with their adjoints."""
    found = {
        f"{op}_{i}": node_of(op, [str(operand.type) for operand in sample.operands], sample.make_attributes())
        for op in CONVOLUTION_OPS
        for i, sample in enumerate(OPS[op].samples)
    }
    return found | {f"{each.name}_{op}": each.node(op) for each in CONVOLUTIONS for op in CONVOLUTION_OPS}


@cache
def kernels() -> dict[str, tuple[ProductKernel, RawKernel]]:
    """A kernel for each node; g++ compiles them in one go."""
    written = {name: product_kernel(node, f"{name}_1") for name, node in nodes().items()}
    return {name: (kernel, RawKernel(gemm.CONVOLUTIONS + kernel.text, kernel.name)) for name, kernel in written.items()}


def drawn(node: Node, batch: int) -> list[np.ndarray]:
    generator = np.random.default_rng(crc32(f"{node.op.name} {node.attributes}".encode()))
    types = [operand.type for operand in node.operands]
    return [generator.uniform(-2, 2, at_batch(type.shape, batch)).astype(NUMPY_NAMES[type.dtype]) for type in types]


def reference(node: Node, operands: Sequence[np.ndarray]) -> np.ndarray:
    return node.op.reference(*(x.astype(np.float64) for x in operands), **node.attributes)


def launch(
    written: ProductKernel, raw: RawKernel, operands: Sequence[np.ndarray], others: Sequence[np.ndarray], batch: int
) -> None:
    """Launches a kernel with arrays for its operands, and for the parameters of its epilogue."""
    grid, block = eval(written.grid, {"B": batch}), eval(written.block)
    scratch = [np.full(written.scratch.shape, np.nan, others[0].dtype)] if written.scratch else []
    filled = [x if x.size else np.zeros(1, x.dtype) for x in operands]  # the emulation needs an element
    raw(grid, block, (*filled, *others, *scratch, np.int32(batch)))


def result(node: Node, written: ProductKernel, raw: RawKernel, batch: int, order: int) -> np.ndarray:
    found = np.full(at_batch(node.result.type.shape, batch), np.nan, NUMPY_NAMES[node.result.type.dtype])
    with in_order(order):
        launch(written, raw, drawn(node, batch), [found], batch)
    return found


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(initial=1e-30))


@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("name", nodes())
def test_convolution(name: str, batch: int):
    node, (written, raw) = nodes()[name], kernels()[name]
    expected = reference(node, drawn(node, batch))
    if not expected.size:
        assert 0 in eval(written.grid, {"B": batch})  # needs no launch
        return
    results = [result(node, written, raw, batch, order) for order in (*ORDERS, *ORDERS)]
    assert_close(results[0], expected)
    assert all(np.array_equal(results[0], other) for other in results), "depends on the order, or on what ran before"


DOUBLE = [name for name, node in nodes().items() if node.result.type.dtype == "f64"]


@pytest.mark.parametrize("name", [*DOUBLE, *(f"{each.name}_{op}" for each in CONVOLUTIONS for op in CONVOLUTION_OPS)])
def test_text_is_cuda(name: str):
    assert machine_code(gemm.CONVOLUTIONS + kernels()[name][0].text)


def test_scratch_does_not_depend_on_the_batch():
    for name, node in nodes().items():
        scratch = scratch_of(node)
        assert scratch == kernels()[name][0].scratch
        assert scratch is None or all(isinstance(dim, int) for dim in scratch.shape)


def test_grids():
    """They grow with the batch, except for long sums, which are split as is best for a typical batch."""
    assert kernels()["second_conv2d"][0].grid == "(B, 1, 1)"
    assert kernels()["strided_conv2d"][0].grid == "((B * 25 + 31) // 32, 1, 1)"
    assert kernels()["first_conv2d_filter_grad"][0].grid == "(1, 1, 264)"


@cache
def kernels_of_tiles() -> dict[tuple[str, int, int], tuple[ProductKernel, RawKernel]]:
    """Kernels of two nodes, with every tile that could be chosen."""
    found = {}
    for number, (rows, columns) in enumerate(product(TILE_ROWS, THREAD_COLUMNS)):
        with pytest.MonkeyPatch.context() as only:
            only.setattr(convolutions, "TILE_ROWS", (rows,))
            only.setattr(convolutions, "THREAD_COLUMNS", {columns: THREAD_COLUMNS[columns]})
            only.setattr(convolutions, "SLICES", SLICES[number % 3 :][:1])
            for name in ("strided_conv2d", "many_filters_conv2d_filter_grad"):
                written = product_kernel(nodes()[name], f"{name}_{rows}_{columns}")
                raw = RawKernel(gemm.CONVOLUTIONS + written.text, written.name)
                found[name, rows, columns] = written, raw
    return found


@pytest.mark.parametrize("columns", THREAD_COLUMNS)
@pytest.mark.parametrize("rows", TILE_ROWS)
@pytest.mark.parametrize("name", ("strided_conv2d", "many_filters_conv2d_filter_grad"))
def test_every_tile(name: str, rows: int, columns: int):
    node, (written, raw) = nodes()[name], kernels_of_tiles()[name, rows, columns]
    assert f"Tile<{rows}, {columns}," in written.text
    for order in ORDERS:
        assert_close(result(node, written, raw, 3, order), reference(node, drawn(node, 3)))
    assert machine_code(gemm.CONVOLUTIONS + written.text)


@pytest.mark.parametrize("order", ORDERS)
def test_epilogue(order: int):
    """Bias and ReLU, and a second output that says where it is not zero."""
    epilogue = Epilogue(
        """
        const float v = value + x2[c];
        y0[i] = v > 0.0f ? v : 0.0f;
        y1[i] = v > 0.0f;
        """,
        (("const float* __restrict__", "x2"), ("float*", "y0"), ("bool*", "y1")),
    )
    for name in ("second_conv2d", "grouped_conv2d", "depthwise_conv2d", "padded_conv2d_input_grad"):
        node = nodes()[name]
        written = product_kernel(node, f"{name}_bias_relu", epilogue)
        assert machine_code(gemm.CONVOLUTIONS + written.text)
        operands, bias = drawn(node, 2), np.random.default_rng(0).normal(size=node.result.type.shape[-1])
        y = np.full(at_batch(node.result.type.shape, 2), np.nan, np.float32)
        positive = np.zeros(y.shape, np.bool_)
        with in_order(order):
            raw = RawKernel(gemm.CONVOLUTIONS + written.text, written.name)
            launch(written, raw, operands, [bias.astype(np.float32), y, positive], 2)
        expected = np.maximum(reference(node, operands) + bias.astype(np.float32), 0)
        assert_close(y, expected)
        assert np.array_equal(positive, y > 0)


# Mistakes -------------------------------------------------------------------------------------------------------------

# A kernel and a mistake in the source that all share: each gives a wrong result in one of two orders, or an error.
MISTAKES = {
    "border not checked": ("padded_conv2d", "if (!Window::bordered) return true;", "return true;"),
    "remainder not checked": ("strided_conv2d_input_grad", " && y % Window::divisor_y == 0", ""),
    "rows and columns of taps exchanged": ("odd_conv2d", "tap / Window::taps_x *", "tap % Window::taps_x *"),
    "end of a sum not checked": ("first_conv2d", "k < end && operand", "operand"),
    "lines not kept in bounds": (
        "strided_conv2d",
        "least(first + line_of(n), total - (along_k ? 1 : width))",
        "first + line_of(n)",
    ),
    "writes not kept in bounds": ("odd_conv2d", " && row < rows && column < columns", ""),
    "group left out": ("grouped_conv2d", "b{w + first}", "b{w}"),
    "another value of k is read": (
        "second_conv2d",
        "room + place(k, line_of_thread",
        "room + place(k + 4, line_of_thread",
    ),
    "no barrier before a block is read": ("second_conv2d", "} else {\n      __syncthreads();\n    }", "}"),
    "no barrier where steps are left out": ("padded_conv2d", "needed = __syncthreads_or(found);", "needed = found;"),
    "threads ahead fill the block that is read": ("second_conv2d", "half ^= 1", "half ^= 0"),
    "no barrier between slices": (
        "second_conv2d",
        "__syncthreads();\n    if (position.slice != turn)",
        "if (position.slice != turn)",
    ),
    "no barrier before cells are read": (
        "second_conv2d",
        "  __syncthreads();\n#pragma unroll\n  for (int n = 0; n < Shape",
        "  for (int n = 0; n < Shape",
    ),
    "sums read before all are there": (
        "second_conv2d_filter_grad",
        "__syncthreads_or(last)",
        "__syncthreads_or(split + 1 == Splits)",
    ),
    "counters not reset": ("second_conv2d_filter_grad", "if (last) *counter = 0;", ""),
    "levels share a counter": ("first_conv2d_filter_grad", "counters + first + level", "counters + first"),
    "no barrier between channels": (
        "depthwise_conv2d_filter_grad",
        "    __syncthreads();\n    if (down != turn)",
        "    if (down != turn)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str):
    name, old, new = MISTAKES[mistake]
    assert gemm.CONVOLUTIONS.count(old) == 1
    node, written = nodes()[name], kernels()[name][0]
    raw = RawKernel(gemm.CONVOLUTIONS.replace(old, new) + written.text, written.name)
    assert not all([passes(node, written, raw, order) for order in (*ORDERS, *ORDERS)])


def passes(node: Node, written: ProductKernel, raw: RawKernel, order: int) -> bool:
    try:
        assert_close(result(node, written, raw, SOME, order), reference(node, drawn(node, SOME)))
    except AssertionError:
        return False
    return True


# Products of matrices -------------------------------------------------------------------------------------------------


@cache
def gemm_kernel() -> RawKernel:
    return RawKernel(gemm.SOURCE, gemm.NAME)


def multiply(a: np.ndarray, b: np.ndarray, order: int) -> np.ndarray:
    """a @ b of two matrices with any strides."""
    (m, k), n = a.shape, b.shape[1]
    c = np.full((m, n), np.nan, np.float32)
    grid, block = gemm.launch_shape(m, n)
    if not c.size:
        assert 0 in grid
        return c
    strides = [np.int64(stride // 4) for stride in (*a.strides, *b.strides)]
    a, b = (x if x.size else np.zeros(1, np.float32) for x in (a, b))
    with in_order(order):
        gemm_kernel()(grid, block, (a, b, c, *map(np.int32, (m, n, k)), *strides))
    return c


SAMPLES = [
    s for s in OPS["matmul"].samples if all(len(x.type.shape) == 2 and x.type.dtype == "f32" for x in s.operands)
]
SIZES = [(1, 1, 1), (3, 200, 10), (65, 33, 31), (40, 40, 100), (128, 64, 10)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shapes", [[at_batch(x.type.shape, 3) for x in s.operands] for s in SAMPLES])
def test_samples_of_matmul(shapes: list[tuple[int, ...]], order: int):
    generator = np.random.default_rng(0)
    a, b = (generator.uniform(-2, 2, shape).astype(np.float32) for shape in shapes)
    assert_close(multiply(a, b, order), a.astype(np.float64) @ b)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("transposed", ("", "a", "b", "ab"))
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_gemm(m: int, k: int, n: int, transposed: str, order: int):
    generator = np.random.default_rng(m)
    a = generator.normal(size=(k, m) if "a" in transposed else (m, k)).astype(np.float32)
    b = generator.normal(size=(n, k) if "b" in transposed else (k, n)).astype(np.float32)
    a, b = a.T if "a" in transposed else a, b.T if "b" in transposed else b
    assert_close(multiply(a, b, order), a.astype(np.float64) @ b)


def test_gemm_is_cuda():
    assert machine_code(gemm.SOURCE)
