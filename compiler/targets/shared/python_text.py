"""Pieces of generated Python: shapes, values, and views of arrays, which are the same for NumPy and CuPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.ir.graph import Node
from compiler.ir.types import NUMPY_NAMES, Batch, Dim


@dataclass(frozen=True)
class Emission:
    """A node to write: names of its operands, result and scratch space, and the operands the result overwrites."""

    node: Node
    arguments: Sequence[str]
    out: str
    overwritten: frozenset[int] = frozenset()
    scratch: str = ""

    def __getitem__(self, attribute: str) -> Any:
        return self.node.attributes[attribute]


def show_dim(dim: Dim) -> str:
    return str(dim) if isinstance(dim, int) else "B" if dim.factor == 1 else f"{dim.factor} * B"


def show_shape(shape: Sequence[Dim]) -> str:
    return "(" + ", ".join(map(show_dim, shape)) + ("," if len(shape) == 1 else "") + ")"


def show_value(value: Any) -> str:
    """An attribute as Python: a number, a string or a tuple of these."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(show_value, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": "np.inf", "-inf": "-np.inf"}.get(str(value), "np.nan")
    return show_dim(value) if isinstance(value, Batch) else repr(value)


# Views of the first operand -------------------------------------------------------------------------------------------

ViewEmitter = Callable[[Emission], str]


def slices(s: Emission) -> str:
    parts = []
    shape = s.node.operands[0].type.shape
    for dim, start, stop, step in zip(shape, s["start"], s["stop"], s["step"], strict=True):
        is_full = start == 0 and stop == dim
        parts.append((":" if is_full else f"{start}:{stop}") + (f":{step}" if step != 1 else ""))
    return f"{s.arguments[0]}[{', '.join(parts) or '...'}]"


def flipped(s: Emission) -> str:
    rank = s.node.result.type.rank
    return f"{s.arguments[0]}[{', '.join('::-1' if axis in s['axes'] else ':' for axis in range(rank)) or '...'}]"


def reshaped(s: Emission) -> str:
    return f"{s.arguments[0]}.reshape({show_shape(s['shape'])})"


def broadcasted(s: Emission) -> str:
    """A NumPy broadcast is read-only; if it keeps all sizes, a reshape allows another result to be written over it."""
    shape = s.node.operands[0].type.shape
    stretched = (1,) * (len(s["shape"]) - len(shape)) + shape != s["shape"]
    return f"np.broadcast_to({s.arguments[0]}, {show_shape(s['shape'])})" if stretched else reshaped(s)


VIEWS: dict[str, ViewEmitter] = {
    "reshape": reshaped,
    "transpose": lambda s: f"{s.arguments[0]}.transpose({show_value(s['permutation'])})",
    "broadcast": broadcasted,
    "slice": slices,
    "flip": flipped,
    "stop_gradient": lambda s: s.arguments[0],
}
NUMPY_TYPES = {dtype: f"np.{name}" for dtype, name in NUMPY_NAMES.items()}
