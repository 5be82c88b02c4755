"""A replacement for runtime/gpu/cuda.py: a device that computes with NumPy, and a table of the kernels of the runtime.

It counts copies to and from the device, and fails for calls that cannot be captured into a graph. tests/gpu emulates
kernels from their source, which needs CuPy and g++.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from runtime.program import aligned_zeros

counts: Counter[str] = Counter()
capturing: list[bool] = []


def reset() -> None:
    counts.clear()
    capturing.clear()


def outside_of_capture(call: str) -> None:
    assert not capturing, f"{call} while a graph is captured"
    counts[call] += 1


def check() -> None:
    """There is always a device."""


def zeros(nbytes: int) -> np.ndarray:
    outside_of_capture("zeros")
    return aligned_zeros(nbytes)


def view(arena: np.ndarray, offset: int, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return arena[offset : offset + math.prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def upload(view: np.ndarray, array: np.ndarray) -> None:
    outside_of_capture("upload")
    assert (view.shape, view.dtype) == (array.shape, array.dtype)
    view[...] = array


def download(view: np.ndarray) -> np.ndarray:
    outside_of_capture("download")
    return np.array(view)


class FakeGraph:
    """The captured launches of a function: each launch of the graph calls it."""

    def __init__(self, function: Callable[[], object]):
        self.function = function

    def launch(self) -> None:
        counts["launch"] += 1
        capturing.append(True)
        self.function()
        capturing.pop()


def capture(function: Callable[[], object]) -> FakeGraph:
    outside_of_capture("capture")
    return FakeGraph(function)


def ElementwiseKernel(inputs: str, outputs: str, body: str, name: str, preamble: str = "") -> Callable[..., None]:
    kind, how = [*name.split("_"), ""][:2]
    return partial(combine, how) if kind == "combine" else KERNELS[kind]


def gather(data: Any, order: Any, position: Any, width: int, batch: Any, size: int) -> None:
    assert (width, size) == (math.prod(batch.shape[1:]), batch.size)
    first = int(position[0])
    batch[...] = data[order[first : first + len(batch)]]


def add_up(*arguments: Any, size: int) -> None:
    *values, count, totals, position, bad_end, bad_loss, _, _ = arguments
    assert size == 1 and len(values) == len(totals)
    position += count
    if not bad_end[0] and not math.isfinite(values[0]):
        bad_end[0], bad_loss[0] = position[0], values[0]
    totals += [count * float(value) for value in values]


def combine(how: str, value: Any, total: Any, size: int) -> None:
    assert size == total.size and value.size == total.size
    {"sum": np.add, "max": np.maximum, "min": np.minimum}[how](total, value.reshape(total.shape), out=total)


KERNELS = {"gather": gather, "add": add_up}
