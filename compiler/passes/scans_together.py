"""scans-together: scans that do not depend on each other become neighbours, so that they can run at the same time.

a = scan(x); b = f(y); c = scan(b)   →   b = f(y); a = scan(x); c = scan(b)
"""

from __future__ import annotations

from collections.abc import Container

from compiler.ir.graph import Graph, Node


def bring_scans_together(graph: Graph) -> Graph:
    """Moves scans, with all that they need, up to the first one of their depth. Bodies are left alone."""
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
    """For each scan those with as many scans before them, itself included: none of them depends on another."""
    depth: dict[Node, int] = {}
    groups: dict[int, list[Node]] = {}
    for node in graph.nodes:
        sources = [operand.node for operand in node.operands if operand.node is not None]
        depth[node] = max((depth[source] + (source.op.name == "scan") for source in sources), default=0)
        if node.op.name == "scan":
            groups.setdefault(depth[node], []).append(node)
    return {scan: group for group in groups.values() for scan in group}


def missing(node: Node, present: Container[Node]) -> set[Node]:
    """The nodes that a node depends on but for those that are present, which lack nothing."""
    found: set[Node] = set()
    pending = [node]
    while pending:
        for operand in pending.pop().operands:
            source = operand.node
            if source is not None and source not in present and source not in found:
                found.add(source)
                pending.append(source)
    return found
