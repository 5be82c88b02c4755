"""Which values of a graph are the same for every batch while nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.op import BATCH, RANDOM
from compiler.ir.types import Batch


def fixed_values(graph: Graph, kinds: Sequence[str] = ("param", "state")) -> set[Value]:
    """The values that depend only on inputs of these kinds and on numbers, and not on the size of the batch."""
    fixed = set(graph.of_kind(*kinds))
    for node in graph.nodes:
        fixed.update(operand for operand in node.operands if isinstance(operand, Literal))
        if not node.op.traits & {BATCH, RANDOM} and fixed.issuperset(node.operands) and not depends_on_batch(node):
            fixed.update(node.results)
    return fixed


def depends_on_batch(node: Node) -> bool:
    """Whether a result has the batch in its shape: `iota` and `broadcast` need no operand for that."""
    return any(isinstance(dim, Batch) for result in node.results for dim in result.type.shape)
