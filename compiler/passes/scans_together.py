"""scans-together: scans that do not depend on each other become adjacent, so they can run at the same time.

a = scan(x); b = f(y); c = scan(b)   →   b = f(y); a = scan(x); c = scan(b)
"""

from __future__ import annotations

from collections.abc import Container

from compiler.ir.graph import Graph, Node
from compiler.ir.op import LOOP


def bring_scans_together(graph: Graph) -> Graph:
    """Moves scans and the nodes they need up to the first scan of the same depth. Bodies are not changed."""
    companions = scans_by_depth(graph)
    position = {node: i for i, node in enumerate(graph.nodes)}
    order: dict[Node, None] = {}
    for node in graph.nodes:
        if node not in order:
            group = companions.get(node, [node])
            for each in group:
                order |= dict.fromkeys(sorted(missing(each, order), key=position.__getitem__))
            order |= dict.fromkeys(group)
    return Graph(graph.name, list(graph.inputs), list(order), dict(graph.outputs))


def scans_by_depth(graph: Graph) -> dict[Node, list[Node]]:
    """For each scan, all scans with the same number of scans before them: none of these depends on another."""
    depth: dict[Node, int] = {}
    groups: dict[int, list[Node]] = {}
    for node in graph.nodes:
        sources = [operand.node for operand in node.operands if operand.node is not None]
        depth[node] = max((depth[source] + (LOOP in source.op.traits) for source in sources), default=0)
        if LOOP in node.op.traits:
            groups.setdefault(depth[node], []).append(node)
    return {scan: group for group in groups.values() for scan in group}


def missing(node: Node, present: Container[Node]) -> set[Node]:
    """The nodes that a node depends on and that are not present; nodes that are present have all they need."""
    found: set[Node] = set()
    pending = [node]
    while pending:
        for operand in pending.pop().operands:
            source = operand.node
            if source is not None and source not in present and source not in found:
                found.add(source)
                pending.append(source)
    return found
