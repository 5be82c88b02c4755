"""What passes share: rebuilding a graph node by node, with some of the nodes replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import LOOP

# rewrite(builder, node, operands) -> the new results, or None to keep the node
Rewrite = Callable[[Builder, Node, list[Value]], Sequence[Value] | None]
MakeBuilder = Callable[[Graph], Builder]
NOTHING: Mapping[Value, Value] = {}


def rebuild(
    graph: Graph, rule: Rewrite, make_builder: MakeBuilder = Builder, replacing: Mapping[Value, Value] = NOTHING
) -> Graph:
    """A graph with a rule applied to every node, those of bodies included; inputs are kept.

    Both graphs share the nodes that stay, so these must not be changed. `replacing` maps inputs, and values that the
    graph no longer computes, to other values.
    """
    result = Graph(graph.name, list(graph.inputs))
    builder = make_builder(result)
    new = dict(replacing)
    for node in graph.nodes:
        operands = [new.get(operand, operand) for operand in node.operands]
        builder.origin = node.origin
        replaced = rule(builder, node, operands)
        if replaced is None:
            if "body" in node.attributes:
                body = rebuild(node.body, rule, make_builder)
                replaced = builder.emit_like(node, operands, body=body)
            else:
                replaced = with_operands(builder, node, operands)
        if replaced is not node.results:
            new.update(zip(node.results, replaced, strict=True))
    result.outputs = {name: new.get(value, value) for name, value in graph.outputs.items()}
    return result


def with_operands(builder: Builder, node: Node, operands: list[Value]) -> list[Value]:
    """Adds the node with these operands, or the node itself if they are its own; returns the results."""
    return builder.reuse(node) if operands == node.operands else builder.emit_like(node, operands)


def keep(builder: Builder, node: Node, operands: list[Value]) -> None:
    """The rule that changes nothing."""


def inside_scans(graph: Graph, run: Callable[[Graph], Graph]) -> Graph:
    """A copy of a graph with a function applied to the bodies of its scans."""

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        return builder.emit_like(node, operands, body=run(node.body)) if LOOP in node.op.traits else None

    return rebuild(graph, rule)
