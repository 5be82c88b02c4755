"""Which nodes may run at the same time: neighbouring scans none of which reads another, such as two directions."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.graph import Graph, Node


def groups(graph: Graph) -> Iterator[list[Node]]:
    """The runs of two or more neighbouring scans that do not depend on each other."""
    group: list[Node] = []
    for node in graph.nodes:
        if "body" in node.attributes and not reads_any(node, group):
            group.append(node)
            continue
        if len(group) > 1:
            yield group
        group = [node] if "body" in node.attributes else []
    if len(group) > 1:
        yield group


def reads_any(node: Node, others: list[Node]) -> bool:
    results = {result for other in others for result in other.results}
    return any(operand in results for operand in node.operands)
