"""The memory that NumPy allocates outside of the arena while the code of an op runs: a table by op name."""

from __future__ import annotations

import math
from collections.abc import Callable

from compiler.ir.graph import Node, Value
from compiler.ir.types import at_batch
from runtime.random import SPARE

# (node, batch) -> bytes. QR was measured: LAPACK works in f64 on copies of the matrix. Indices of `np.add.at` are i64.
ALLOCATED: dict[str, Callable[[Node, int], float]] = {
    "orthogonalize": lambda node, batch: 4 * 8 * elements(node.result, batch),
    "random": lambda node, batch: SPARE * elements(node.result, batch),
    "scatter_add": lambda node, batch: 8 * elements(node.operands[0], batch),
}


def elements(value: Value, batch: int) -> int:
    return math.prod(at_batch(value.type.shape, batch))


def allocated(node: Node, batch: int) -> int:
    """The bytes for one node, without those in its body."""
    return math.ceil(ALLOCATED[node.op.name](node, batch)) if node.op.name in ALLOCATED else 0
