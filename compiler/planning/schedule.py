"""Nodes that may run at the same time: neighbouring independent scans, such as those of a bidirectional layer."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.graph import Graph, Node
from compiler.ir.op import LOOP


def groups(graph: Graph) -> Iterator[list[Node]]:
    """The runs of two or more neighbouring scans that do not depend on each other."""
    group: dict[Node, None] = {}
    for node in graph.nodes:
        is_scan = LOOP in node.op.traits
        if not is_scan or any(operand.node in group for operand in node.operands):
            if len(group) > 1:
                yield list(group)
            group = {}
        if is_scan:
            group[node] = None
    if len(group) > 1:
        yield list(group)
