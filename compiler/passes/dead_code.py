"""dead-code: a node whose results nobody reads goes."""

from __future__ import annotations

from compiler.ir.graph import Graph
from compiler.passes.rewriting import rebuild


def remove_dead_code(graph: Graph) -> Graph:
    """f(x), unused = ∅. Bodies lose the nodes that none of their outputs needs; outputs of a body all stay."""
    graph = rebuild(graph, lambda *_: None)  # bodies are changed below: not those of the graph we were given
    return pruned(graph)


def pruned(graph: Graph) -> Graph:
    live = set(graph.outputs.values())
    kept = []
    for node in reversed(graph.nodes):
        if any(result in live for result in node.results):
            live.update(node.operands)
            kept.append(node)
            if "body" in node.attributes:
                node.attributes["body"] = pruned(node.body)
    return Graph(graph.name, list(graph.inputs), kept[::-1], dict(graph.outputs))
