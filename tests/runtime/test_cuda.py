"""Work on streams and in graphs, with a stand-in for CuPy that records its calls."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime.gpu import cublas, cuda


class Cupy:
    """Streams, events and graphs that only keep a log, under `cuda` as in CuPy."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.numbers, self.events = count(), count()
        self.current: list[Stream] = []
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: Stream(self),
            Event=lambda block, disable_timing: Event(self),
            get_current_stream=lambda: self.current[-1],
            runtime=SimpleNamespace(runtimeGetVersion=lambda: 13020),
        )

    def launch(self, name: str) -> None:
        """A kernel."""
        self.log.append(f"{name} on {self.current[-1].ptr}")


class Stream:
    def __init__(self, cupy: Cupy):
        self.cupy, self.ptr = cupy, next(cupy.numbers)

    def use(self) -> None:
        self.cupy.current = [self]

    def __enter__(self) -> None:
        self.cupy.current.append(self)

    def __exit__(self, *exception: object) -> None:
        self.cupy.current.pop()

    def wait_event(self, event: Event) -> None:
        assert event.recorded, "waits for nothing"
        self.cupy.log.append(f"{self.ptr} waits for {event.number} of {event.recorded[-1]}")

    def begin_capture(self) -> None:
        self.cupy.log.append("begin")

    def end_capture(self) -> Any:
        self.cupy.log.append("end")
        note = self.cupy.log.append
        return SimpleNamespace(upload=lambda: note("upload"), launch=lambda: note("launch"))


class Event:
    def __init__(self, cupy: Cupy):
        self.cupy, self.number, self.recorded = cupy, next(cupy.events), []

    def record(self, stream: Stream | None = None) -> None:
        self.recorded.append((stream or self.cupy.current[-1]).ptr)

    def synchronize(self) -> None:
        self.cupy.log.append(f"wait for {self.number}")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    stand_in = Cupy()
    monkeypatch.setattr(cuda, "cupy", stand_in)
    streams = cuda.Streams()
    monkeypatch.setattr(cuda, "streams", lambda: streams)
    streams.main.use()
    return stand_in


def test_together_forks_and_joins(cupy: Cupy) -> None:
    cuda.together(lambda: cupy.launch("f"), lambda: cupy.launch("g"), lambda: cupy.launch("h"))
    cupy.launch("after")
    assert cupy.log == [
        *("1 waits for 0 of 0", "g on 1"),
        *("2 waits for 2 of 0", "h on 2"),
        "f on 0",
        *("0 waits for 1 of 1", "0 waits for 3 of 2"),
        "after on 0",
    ]


def test_the_same_streams_every_time(cupy: Cupy) -> None:
    """A stream gets its workspace on first use, which must not be while a graph is captured."""

    def inner(name: str) -> None:
        cuda.together(lambda: cupy.launch(f"{name}1"), lambda: cupy.launch(f"{name}2"), lambda: cupy.launch(f"{name}3"))

    def outer() -> None:
        cuda.together(lambda: inner("f"), lambda: inner("g"))
        inner("h")

    outer()
    first, cupy.log = cupy.log, []
    outer()
    assert cupy.log == first
    places = dict(line.split(" on ") for line in first if " on " in line)
    assert [places[name] for name in ("f1", "f2", "f3", "g1", "g2", "g3")] == ["0", "2", "3", "1", "2", "3"]
    assert [places[name] for name in ("h1", "h2", "h3")] == ["0", "1", "2"]


def test_a_captured_graph(cupy: Cupy) -> None:
    graph = cuda.capture(lambda: cupy.launch("f"))
    assert cupy.log == ["begin", "f on 0", "end", "upload"]
    cupy.log.clear()
    for _ in range(3):
        graph.launch()
    assert cupy.log == ["wait for 0", "launch", "wait for 1", "launch", "wait for 0", "launch"]


def test_a_capture_that_fails_is_ended(cupy: Cupy) -> None:
    with pytest.raises(ZeroDivisionError):
        cuda.capture(lambda: 1 // 0)
    assert cupy.log == ["begin", "end"]


class DeviceArray(np.ndarray):
    """An array of NumPy with an address in the place that CuPy uses."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


def device_array(shape: tuple[int, ...], dtype: type = np.float32) -> DeviceArray:
    return np.ones(shape, dtype).view(DeviceArray)


def test_products_of_two_streams_have_their_own_handles(cupy: Cupy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int, bool]] = []
    multiplied: list[tuple[int, str, tuple[int, ...]]] = []

    class Handle:
        def __init__(self, library: object, stream: int, workspace: int, tf32: bool):
            made.append((stream, workspace, tf32))
            self.stream = stream

        def multiply(self, call: cublas.Gemm, dtype: str, *addresses: int) -> None:
            multiplied.append((self.stream, dtype, addresses))

    monkeypatch.setattr(cublas, "load", lambda version: object())
    monkeypatch.setattr(cublas, "Handle", Handle)
    monkeypatch.setattr(cuda, "zeros", lambda size: device_array((size,), np.uint8))
    products = cuda.Products()
    monkeypatch.setattr(cuda, "products", lambda: products)
    cuda.use_tf32(True)
    a, b, out = device_array((2, 3)), device_array((3, 4)), device_array((2, 4))
    for _ in range(2):
        cuda.together(lambda: cuda.matmul(a, b, out), lambda: cuda.matmul(a, b, out))
    addresses = tuple(each.ctypes.data for each in (a, b, out))
    assert multiplied == [(1, "float32", addresses), (0, "float32", addresses)] * 2
    assert [(stream, tf32) for stream, _, tf32 in made] == [(1, True), (0, True)]
    assert made[0][1] != made[1][1], "one workspace for two streams"
    cuda.matmul(device_array((2, 0)), device_array((0, 4)), out)
    assert not out.any() and len(multiplied) == 4
