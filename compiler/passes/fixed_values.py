"""Which values of a graph are the same for every batch, as long as nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.graph import Graph, Literal, Value
from compiler.ops.op import BATCH, RANDOM


def fixed_values(graph: Graph, kinds: Sequence[str] = ("param", "state")) -> set[Value]:
    """The values that depend on inputs of these kinds and on numbers alone."""
    fixed = set(graph.of_kind(*kinds))
    for node in graph.nodes:
        fixed.update(operand for operand in node.operands if isinstance(operand, Literal))
        if not node.op.traits & {BATCH, RANDOM} and fixed.issuperset(node.operands):
            fixed.update(node.results)
    return fixed
