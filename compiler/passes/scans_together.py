"""scans-together: scans that do not depend on each other become neighbours, so that they can run at the same time.

a = scan(x); b = f(y); c = scan(b)   →   b = f(y); a = scan(x); c = scan(b)
"""

from __future__ import annotations

from compiler.ir.graph import Graph, Node, Value


def bring_scans_together(graph: Graph) -> Graph:
    """Moves a scan, with all that it needs, up to an earlier one that it does not depend on. Bodies are left alone."""
    nodes = list(graph.nodes)
    for scan in [node for node in nodes if "body" in node.attributes]:
        needed = needs(scan)
        at = nodes.index(scan)
        earlier = [i for i in range(at) if "body" in nodes[i].attributes and nodes[i] not in needed]
        if not earlier:
            continue
        first = earlier[0]
        between = nodes[first:at]
        if any("body" in node.attributes and node in needed for node in between):
            continue
        before = [node for node in between if node in needed]
        after = [node for node in between if node not in needed]
        group = 1 + next((i for i, node in enumerate(after[1:]) if "body" not in node.attributes), len(after) - 1)
        nodes[first : at + 1] = [*before, *after[:group], scan, *after[group:]]
    return Graph(graph.name, list(graph.inputs), nodes, dict(graph.outputs))


def needs(node: Node) -> set[Node]:
    """All nodes that a node depends on."""
    found: set[Node] = set()
    pending: list[Value] = list(node.operands)
    while pending:
        source = pending.pop().node
        if source is not None and source not in found:
            found.add(source)
            pending += source.operands
    return found
