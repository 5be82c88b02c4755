"""materialize: what must be written somewhere is the result of a node that writes.

The new values of variables, and every output of a scan's body, end up in a place of their own. Where such an output is
an input, a literal, a view, or an output already, a `copy` is put in:   f(x) = x   becomes   f(x) = copy(x)
"""

from __future__ import annotations

from collections.abc import Iterable

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.memory import VARIABLES
from compiler.ops.op import VIEW


def materialize_outputs(graph: Graph) -> Graph:
    """Changes bodies in place: they belong to this graph alone."""
    for node in graph.nodes:
        if "body" in node.attributes:
            materialize_outputs(node.body)
            carries = list(node.body.outputs)[: node.attributes["carries"]]
            steps = list(node.body.outputs)[node.attributes["carries"] :]
            copy_where_needed(node.body, carries)
            copy_where_needed(node.body, steps)
    variables = {value.name for value in graph.of_kind(*VARIABLES)}
    copy_where_needed(graph, [name for name in graph.outputs if name in variables])
    copy_where_needed(graph, [name for name, value in graph.outputs.items() if isinstance(value, Literal)])
    return graph


def copy_where_needed(graph: Graph, names: Iterable[str]) -> None:
    """Copies of inputs go first, while the inputs still hold their old values; other copies go last."""
    taken: set[Value] = set()
    for name in names:
        value = graph.outputs[name]
        if value in taken or not is_written(value):
            graph.outputs[name] = copied(graph, value, first=value.node is None)
        taken.add(graph.outputs[name])


def is_written(value: Value) -> bool:
    """Whether a node computes the value straight into bytes that it is given."""
    return value.node is not None and VIEW not in value.node.op.traits and "body" not in value.node.attributes


def copied(graph: Graph, value: Value, first: bool) -> Value:
    extra = Graph(graph.name)
    result = Builder(extra).copy(value)
    nodes: list[Node] = extra.nodes
    graph.nodes[:] = [*nodes, *graph.nodes] if first else [*graph.nodes, *nodes]
    return result
