"""dead-code: removes nodes whose results are not read, and outputs of bodies that are not read."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value, needed_nodes
from compiler.passes.rewriting import rebuild


def remove_dead_code(graph: Graph) -> Graph:
    """f(x), unused = ∅"""
    live = needed_nodes(graph.nodes, graph.outputs.values())
    read = {*graph.outputs.values(), *(operand for node in live for operand in node.operands)}

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        return with_less_of_body(builder, node, operands, read) if "body" in node.attributes else None

    return rebuild(Graph(graph.name, graph.inputs, live, graph.outputs), rule)


def with_less_of_body(builder: Builder, node: Node, operands: list[Value], read: set[Value]) -> list[Value]:
    """Adds the node without the results that are not read; a scan keeps all its carries."""
    carries = node.attributes.get("carries", 0)
    kept = [i < carries or result in read for i, result in enumerate(node.results)]
    outputs = {name: value for (name, value), keep in zip(node.body.outputs.items(), kept, strict=True) if keep}
    body = remove_dead_code(Graph(node.body.name, node.body.inputs, node.body.nodes, outputs))
    results = iter(builder.emit_like(node, operands, body=body))
    return [next(results) if keep else result for result, keep in zip(node.results, kept, strict=True)]
