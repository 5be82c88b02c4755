"""common-subexpressions: two nodes that compute the same value become one."""

from __future__ import annotations

from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value, literal_key
from compiler.ir.op import COMMUTATIVE, RANDOM
from compiler.passes.rewriting import rebuild, with_operands


def merge_common_subexpressions(graph: Graph) -> Graph:
    """f(x) … f(x) = y … y, within one graph or one body; random ops and ops with a body stay."""
    seen: dict[Graph, dict[Any, list[Value]]] = {}

    def rule(builder: Builder, node: Node, operands: list[Value]) -> list[Value] | None:
        if RANDOM in node.op.traits or "body" in node.attributes:
            return None
        keys = [literal_key(operand) for operand in operands]
        unordered = COMMUTATIVE in node.op.traits  # of two operands: x + x has the set {x}
        key = (node.op.name, frozenset(keys) if unordered else tuple(keys), repr(node.attributes))
        known = seen.setdefault(builder.graph, {})
        if key not in known:
            known[key] = with_operands(builder, node, operands)
        return known[key]

    return rebuild(graph, rule)
