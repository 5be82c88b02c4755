"""Launches on the emulated device: it runs them in turn, records them into graphs, and calls watchers.

An order is a number: 0 runs loop indices, blocks, threads and functions that may run at the same time in ascending
order, any other number in a different one. Results must not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from tests.gpu.emulation.compiling import Order

Bytes = tuple[int, int]  # addresses: the first, and the one after the last


class KernelError(AssertionError):
    """A kernel breaks a rule: an index outside of an array, a race, a barrier that not all threads reach."""


@dataclass(frozen=True)
class Launch:
    """A piece of work for the device: the bytes that it reads and writes, and a function that runs it."""

    name: str
    reads: Sequence[Bytes]
    writes: Sequence[Bytes]
    run: Callable[[], None]


@dataclass
class State:
    """The state of the emulated device."""

    order: int = 0
    recording: list[Launch] | None = None  # instead of running them
    watchers: list[Callable[[Launch], None]] = field(default_factory=list)


state = State()


def span(array: np.ndarray) -> Bytes:
    """The bytes from the first element of an array to the end of its last."""
    if not array.size:
        return array.ctypes.data, array.ctypes.data
    ends = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    first = array.ctypes.data + sum(min(end, 0) for end in ends)
    return first, array.ctypes.data + sum(max(end, 0) for end in ends) + array.itemsize


def overlap(one: Bytes, other: Bytes) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def order_of(count: int, order: int) -> Order:
    """0, 1, 2, … for order 0; otherwise from the last one, in steps that visit all, with neighbours far apart."""
    if order == 0 or count < 2:
        return Order(0, 1)
    step = max(1, round(count * 0.618 * order) % count)
    while math.gcd(step, count) > 1:
        step += 1
    return Order(count - 1, step % count)


def submit(launch: Launch) -> None:
    """Runs a launch now, or records it."""
    if state.recording is not None:
        state.recording.append(launch)
        return
    launch.run()
    for watcher in state.watchers:
        watcher(launch)


def record(function: Callable[[], object]) -> list[Launch]:
    """The launches of a function, without running them."""
    outer, state.recording = state.recording, []
    try:
        function()
        return state.recording
    finally:
        state.recording = outer


def together(*functions: Callable[[], object]) -> None:
    """Runs functions that may run at the same time: none may write bytes that another one uses."""
    branches = [record(function) for function in functions]
    for i, branch in enumerate(branches):
        for other in branches[:i] + branches[i + 1 :]:
            check_apart(branch, other)
    for branch in branches if state.order % 2 == 0 else branches[::-1]:
        for launch in branch:
            submit(launch)


def check_apart(branch: Sequence[Launch], other: Sequence[Launch]) -> None:
    """Fails if one branch writes bytes that a launch of the other reads or writes."""
    for one in branch:
        for two in other:
            if any(overlap(a, b) for a in one.writes for b in (*two.reads, *two.writes)):
                raise KernelError(f"{one.name} writes bytes that {two.name} uses, which may run at the same time")


@contextmanager
def in_order(order: int) -> Iterator[None]:
    """Runs launches in an order."""
    before, state.order = state.order, order
    try:
        yield
    finally:
        state.order = before


@contextmanager
def after_launch(watcher: Callable[[Launch], None]) -> Iterator[None]:
    """Calls a function after every launch, product and copy."""
    state.watchers.append(watcher)
    try:
        yield
    finally:
        state.watchers.remove(watcher)
