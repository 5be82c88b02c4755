"""Deep recursion does not map and unmap memory on every call."""

from __future__ import annotations

import resource
import sys

import pytest

from compiler.elaborate.recursion import recursive

DEPTHS, CALLS = range(0, 400, 2), 200


def most_faults() -> int:
    """Page faults while a leaf is called many times, at the worst of many depths."""
    return max(faults_at(depth) for depth in DEPTHS)


def faults_at(depth: int) -> int:
    if depth:
        return faults_at(depth - 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        leaf()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def leaf() -> int:
    return branch(0)


def branch(number: int) -> int:
    return number


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the chunks are CPython's")
def test_calls_across_a_border_are_cheap():
    assert recursive(most_faults)() < CALLS / 2


def test_a_wrapped_function_behaves_as_before():
    @recursive
    def difference(a: int, *, b: int) -> int:
        return a - b

    assert difference(3, b=1) == 2 and difference.__name__ == "difference"
    with pytest.raises(ZeroDivisionError):
        recursive(lambda: 1 // 0)()
