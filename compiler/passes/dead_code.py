"""dead-code: a node whose results nobody reads goes, and so does an output of a body that nobody reads."""

from __future__ import annotations

from compiler.ir.graph import Graph, Node, Value
from compiler.passes.rewriting import keep, rebuild


def remove_dead_code(graph: Graph) -> Graph:
    """f(x), unused = ∅"""
    return pruned(rebuild(graph, keep))  # a copy: nodes with bodies are changed below


def pruned(graph: Graph) -> Graph:
    live = set(graph.outputs.values())
    kept = []
    for node in reversed(graph.nodes):
        if not live.isdisjoint(node.results):
            if "body" in node.attributes:
                prune_body(node, live)
            live.update(node.operands)
            kept.append(node)
    return Graph(graph.name, list(graph.inputs), kept[::-1], dict(graph.outputs))


def prune_body(node: Node, live: set[Value]) -> None:
    """The carries of a scan stay; of all other results, those that are read."""
    body, carries = node.body, node.attributes.get("carries", 0)
    wanted = [i < carries or result in live for i, result in enumerate(node.results)]
    body.outputs = {name: value for (name, value), keep in zip(body.outputs.items(), wanted, strict=True) if keep}
    node.results = [result for result, keep in zip(node.results, wanted, strict=True) if keep]
    node.attributes["body"] = pruned(body)
