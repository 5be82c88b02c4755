"""What passes share: building a graph anew, node by node, with some of the nodes replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value

# rule(builder, node, operands) -> the new results, or None to keep the node as it is
Rule = Callable[[Builder, Node, list[Value]], Sequence[Value] | None]


def rebuild(graph: Graph, rule: Rule) -> Graph:
    """A copy of a graph (and of the bodies in it) with a rule applied to every node; inputs are kept."""
    result = Graph(graph.name, list(graph.inputs))
    builder = Builder(result)
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        operands = [new.get(operand, operand) for operand in node.operands]
        with builder.at(node.origin):
            replaced = rule(builder, node, operands)
            if replaced is None:
                replaced = copy_node(builder, node, operands, rule)
        new.update(zip(node.results, replaced, strict=True))
    result.outputs = {name: new.get(value, value) for name, value in graph.outputs.items()}
    return result


def copy_node(builder: Builder, node: Node, operands: list[Value], rule: Rule) -> Sequence[Value]:
    attributes = dict(node.attributes)
    if "body" in attributes:
        attributes["body"] = rebuild(node.body, rule)
    builder.emit(node.op.name, operands, attributes)
    return builder.graph.nodes[-1].results
