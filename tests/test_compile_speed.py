"""Compiling takes time in proportion to the program: as many more lines of Python run for every further layer.

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
    """Convolutions with a way around each."""
    return f"""
model M(image: f32[B, 8, 8, 4]) {{
  for i in range({layers}) {{ image = image + (image |> Conv2D(4, 3, padding="same") |> BatchNorm |> relu) }}
  return image |> Flatten
}}
train M {{ loss = mean_squared_error; optimizer = SGD(lr=0.01) }}
"""


def lines_run(program: str) -> int:
    """How many lines of Python a compilation runs; a line counts again each time a loop comes back to it."""
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
    compile_text(program(2))  # what is remembered from then on would count for the first alone
    once, twice, three_times = (lines_run(program(count * layers)) for count in (1, 2, 3))
    assert three_times - twice < 1.05 * (twice - once)
