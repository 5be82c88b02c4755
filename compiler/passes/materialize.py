"""materialize: every value that must be written to a separate place is the result of a node that writes.

These are the new values of variables and the outputs of scan bodies. If such an output is an input, a literal, a view,
or already another output, a `copy` is inserted:   f(x) = x   becomes   f(x) = copy(x)
The same goes for an output that is the old value of a variable which gets a new one.
A literal has no place, so as a constant of a scan it moves into the body:   scan(x, 0.5) { x * k }   becomes
scan(x, 0.5) { x * 0.5 }
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import VARIABLES, Graph, Literal, Node, Value
from compiler.ir.op import LOOP, VIEW
from compiler.passes.parameter_folding import unviewed
from compiler.passes.rewriting import keep, rebuild


def materialize_apart(graph: Graph) -> Graph:
    """The same, with a separate place for each output of a scan body even if two are equal: for a kernel it is cheaper
    to write a result twice than to copy it."""
    return materialize_outputs(graph, apart=True)


def materialize_outputs(graph: Graph, apart: bool = False) -> Graph:
    """See the file's docstring."""

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if LOOP not in node.op.traits:
            return None
        carries = node.attributes["carries"]
        constants = list(zip(node.body.inputs, operands, strict=True))[carries + node.attributes["sequences"] :]
        literals = {value: operand for value, operand in constants if isinstance(operand, Literal)}
        body = materialize_outputs(rebuild(node.body, keep, replacing=literals) if literals else node.body, apart)
        names = list(body.outputs)
        for each in [names] if apart else [names[:carries], names[carries:]]:
            copy_where_needed(body, each)
        return builder.emit_like(node, operands, body=body)

    result = rebuild(graph, rule)
    variables = {value.name for value in graph.of_kind(*VARIABLES)}
    copy_where_needed(result, [name for name in result.outputs if name in variables])
    copy_where_needed(result, [name for name, value in result.outputs.items() if isinstance(value, Literal)])
    replaced = {value for value in graph.of_kind(*VARIABLES) if result.outputs.get(value.name, value) is not value}
    copy_where_needed(result, [name for name, value in result.outputs.items() if unviewed(value) in replaced])
    return result


def copy_where_needed(graph: Graph, names: Iterable[str]) -> None:
    """Copies of inputs go first, while the inputs still have their old values; other copies go last."""
    first, last = Graph(graph.name), Graph(graph.name)
    used: set[Value] = set()
    for name in names:
        value = graph.outputs[name]
        if value in used or not is_written(value):
            graph.outputs[name] = Builder(last if value.node else first).copy(value)
        used.add(graph.outputs[name])
    graph.nodes = [*first.nodes, *graph.nodes, *last.nodes]


def is_written(value: Value) -> bool:
    """Whether a node computes the value directly into memory that it is given."""
    return value.node is not None and not value.node.op.traits & {VIEW, LOOP}
