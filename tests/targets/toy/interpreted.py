"""What generated source of the toy target calls: a graph in IR text, run by the interpreter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.interpreter import interpret
from compiler.ir.reader import read_module


class Interpreted:
    """A graph as a function of arrays; results are written to the arrays given for them."""

    def __init__(self, text: str):
        (self.graph,) = read_module(text).values()

    def __call__(self, operands: Sequence[np.ndarray], results: Sequence[np.ndarray], batch: int) -> None:
        names = (value.name for value in self.graph.inputs)
        found = interpret(self.graph, dict(zip(names, operands, strict=True)), batch)
        for array, value in zip(results, found.values(), strict=True):
            array[...] = value
