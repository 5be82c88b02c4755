"""Sums on the emulated device keep their digits: of 10^7 equal numbers along all axes, by one block and by many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Value
from compiler.ir.types import parse_type
from tests.gpu.cupy_or_skip import cupy
from tests.gpu.running import OnDevice, on_device

assert cupy

TENTH = float(np.float32(0.1))
Body = Callable[[Builder, Value], Value]
SUMS: dict[str, tuple[str, int, tuple[int, ...]]] = {  # the shape, the batch, the axes
    "all axes": ("10000000", 1, (0,)),
    "leading": ("1250000,8", 1, (0,)),
    "trailing": ("8,1250000", 1, (1,)),
    "middle": ("4,625000,4", 1, (1,)),
    "images": ("128,64,64,3", 1, (0, 1, 2)),
    "whole batch": ("B", 10_000_000, (0,)),
    "leading batch": ("B,8", 1_250_000, (0,)),
    "batch of images": ("B,64,64,3", 128, (0, 1, 2)),
    "rows of a batch": ("B,1250000", 8, (1,)),
    "several axes": ("B,4,4", 600_000, (0, 2)),
}
Run = tuple[OnDevice, np.ndarray, float]  # with the operand, and the right results


def program(type: str, batch: int, body: Body) -> OnDevice:
    graph = Graph("sums")
    builder = Builder(graph)
    graph.outputs = {"y": body(builder, builder.input("x", parse_type(type), "input"))}
    return on_device(graph, batch)


def tenths(shape: str, batch: int) -> np.ndarray:
    return np.full([batch if dim == "B" else int(dim) for dim in shape.split(",")], 0.1, np.float32)


@pytest.fixture(scope="module")
def compiled(emulated: None) -> dict[str, Run]:
    """All of them before any runs, so that g++ compiles them at once."""
    found: dict[str, Run] = {}
    for name, (shape, batch, axes) in SUMS.items():
        x = tenths(shape, batch)
        count = int(np.prod([x.shape[axis] for axis in axes]))
        run = program(f"f32[{shape}]", batch, lambda b, x, axes=axes: b.sum(x, axes=axes, keepdims=False))
        found[name] = run, x, TENTH * count
        run = program(f"f32[{shape}]", batch, lambda b, x, axes=axes: b.sum_of_products(x, x, axes=axes))
        found[f"{name}, of products"] = run, x, TENTH**2 * count
    rows, batch = tenths("B,10", 300_000), 300_000
    run = program(
        "f32[B,10]", batch, lambda b, x: b.sum(b.sum(x, axes=(1,), keepdims=False), axes=(0,), keepdims=False)
    )
    found["sums of sums"] = run, rows, TENTH * rows.size
    run = program("f32[B,4]", 100_000, scattered)
    found["equal indices"] = run, tenths("B,4", 100_000), TENTH * 100_000
    return found


def scattered(builder: Builder, x: Value) -> Value:
    indices = builder.broadcast(builder.cast(0, dtype="i32"), shape=x.type.shape[:1])
    return builder.scatter_add(indices, x, size=1)


@pytest.mark.parametrize("name", [*SUMS, *(f"{name}, of products" for name in SUMS), "sums of sums", "equal indices"])
def test_equal_numbers(name: str, compiled: dict[str, Run]):
    run, x, expected = compiled[name]
    np.testing.assert_allclose(run({"x": x})["y"], expected, rtol=1e-6)


INF, NAN = np.inf, np.nan
LARGE = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("first", "others", "expected"),
    [
        ([INF], 1, INF),
        ([-INF], 1, -INF),
        ([INF, -INF], 1, NAN),
        ([NAN], 1, NAN),
        ([LARGE] * 2, 0, INF),
        ([1e8], 1, None),
    ],
)
def test_sums_that_are_not_finite(first: list[float], others: float, expected: float | None, emulated: None):
    """As in a plain sum; the last one is finite, and all its ones count."""
    x = np.full(100_000, others, np.float32)
    x[5 : 5 + 256 * len(first) : 256] = first  # by one thread
    run = program("f32[B]", len(x), lambda b, x: b.sum(x, axes=(0,), keepdims=False))
    np.testing.assert_allclose(run({"x": x})["y"], 1e8 + 99_999 if expected is None else expected, rtol=2e-7)
