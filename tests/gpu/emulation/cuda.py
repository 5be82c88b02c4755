"""runtime/gpu/cuda.py for a device that is emulated on the host: the same names, on NumPy arrays.

Tests replace `runtime.gpu.cuda` by this module; generated source, and the runtime above it, run unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter_ns
from typing import Any

import numpy as np

from runtime.cpu.kernels.basic import steps, view
from runtime.program import aligned_zeros
from tests.gpu.emulation.kernels import ElementwiseKernel, RawKernel
from tests.gpu.emulation.launches import KernelError, Launch, overlap, record, span, state, submit, together

__all__ = [
    "DeviceClock", "ElementwiseKernel", "RawKernel", "capture", "check", "copy", "device_name", "download",
    "free_bytes", "matmul", "sleep", "steps", "synchronize", "together", "upload", "use_tf32", "view", "zeros",
]  # fmt: skip

MEMORY = 2**34
TICK = "tick"


def check() -> None:
    """There is always a device."""


def device_name() -> str:
    return "the host"


def free_bytes() -> int:
    return MEMORY


def use_tf32(wanted: bool) -> None:
    """Products are those of NumPy."""


def zeros(nbytes: int) -> np.ndarray:
    outside_of_capture()
    return aligned_zeros(nbytes)


def upload(target: np.ndarray, array: np.ndarray) -> None:
    outside_of_capture()
    assert target.shape == array.shape and target.dtype == array.dtype
    target[...] = array


def download(source: np.ndarray) -> np.ndarray:
    outside_of_capture()
    return np.array(source)


def synchronize() -> None:
    outside_of_capture()


def outside_of_capture() -> None:
    """Fails for calls that CUDA cannot put into a graph."""
    assert state.recording is None, "allocates, copies from or to the host, or waits while a graph is captured"


class RecordedGraph:
    """Recorded launches."""

    def __init__(self, launches: list[Launch]):
        self.launches = launches

    def launch(self) -> None:
        for launch in self.launches:
            submit(launch)


def capture(function: Callable[[], object]) -> RecordedGraph:
    """Everything that a function launches, without running it."""
    outside_of_capture()
    return RecordedGraph(record(function))


def copy(out: np.ndarray, source: np.ndarray) -> None:
    assert out.dtype == source.dtype
    submit(Launch("copy", [span(source)], [span(out)], lambda: np.copyto(out, source)))


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a @ b, with the rules of cuBLAS: contiguous rows or columns, and a result that overlaps no operand."""
    assert a.dtype == b.dtype == out.dtype and out.dtype.kind == "f"
    for operand in (a, b, out):
        assert operand.itemsize in operand.strides[-2:] or 1 in operand.shape[-2:], (
            "neither rows nor columns contiguous"
        )
    reads, writes = [span(a), span(b)], [span(out)]
    if any(overlap(one, writes[0]) for one in reads):
        raise KernelError("a product overwrites one of its operands")
    submit(Launch("matmul", reads, writes, lambda: product(a, b, out)))


def product(a: Any, b: Any, out: Any) -> None:
    np.matmul(a, b, out=out)


class DeviceClock:
    """The clock of the host, read when launches run; calls a watcher with the number of each kernel that has run."""

    watcher: Callable[[int], None] | None = None

    def __init__(self) -> None:
        self.laps: list[list[tuple[int, int]]] = []

    def start(self) -> Callable[[int], None]:
        lap: list[tuple[int, int]] = []
        self.laps.append(lap)
        submit(Launch(TICK, [], [], lambda: lap.append((0, perf_counter_ns()))))
        return lambda kernel: submit(Launch(TICK, [], [], lambda: self.tick(lap, kernel)))

    def tick(self, lap: list[tuple[int, int]], kernel: int) -> None:
        if self.watcher is not None:
            self.watcher(kernel)
        lap.append((kernel, perf_counter_ns()))

    def read(self) -> list[list[tuple[int, float]]]:
        outside_of_capture()
        laps = [[(kernel, now - last) for (_, last), (kernel, now) in pairwise(lap)] for lap in self.laps]
        self.laps.clear()
        return laps


def sleep(seconds: float) -> None:
    """Nothing is queued: launches run at once."""
