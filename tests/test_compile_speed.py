"""Compile time is linear in the size of the program: every further layer runs the same number of lines of Python.

Lines are counted, not seconds: the count is the same on every machine, however busy. Figures in seconds come from
`tests/bench/compile_time.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.bench.compile_time import chain, elementwise
from tests.programs import compile_text


def recurrent(layers: int) -> str:
    """Recurrent layers in two directions, one after the other."""
    return f"""
model M(x: f32[B, 6, 4]) {{
  for i in range({layers}) {{ x = x |> Bidirectional(SimpleRNN(2), return_sequences=true) }}
  return x[:, 0]
}}
train M {{ loss = mean_squared_error; optimizer = SGD(lr=0.01, momentum=0.9) }}
"""


def residual(layers: int) -> str:
    """Convolutions, each with a skip connection."""
    return f"""
model M(image: f32[B, 8, 8, 4]) {{
  for i in range({layers}) {{ image = image + (image |> Conv2D(4, 3, padding="same") |> BatchNorm |> relu) }}
  return image |> Flatten
}}
train M {{ loss = mean_squared_error; optimizer = SGD(lr=0.01) }}
"""


def lines_run(program: str) -> int:
    """The number of lines of Python that a compilation runs; a line in a loop counts each time it runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        compile_text(program)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(("program", "layers"), [(chain, 5), (elementwise, 10), (recurrent, 2), (residual, 2)])
def test_later_layers_take_no_longer_than_the_first(program: Callable[[int], str], layers: int):
    compile_text(program(2))  # fills the caches, which would otherwise count for the first run only
    once, twice, three_times = (lines_run(program(count * layers)) for count in (1, 2, 3))
    assert three_times - twice < 1.05 * (twice - once)
