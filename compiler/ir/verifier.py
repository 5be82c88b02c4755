"""Checks that a graph is well formed: every type is inferred again, every operand is defined before use.

Runs after elaboration, after differentiation and after every pass. A failure is a bug in the compiler; the message
shows the node and its neighbours.
"""

from __future__ import annotations

from compiler.ir.graph import Graph, Literal, Module, Node, Value
from compiler.ir.inference import infer
from compiler.ir.printer import number, print_node
from compiler.ir.types import TypeRuleError


class VerificationError(AssertionError):
    """The IR broke one of its rules."""


def verify_module(module: Module, stage: str) -> None:
    for graph in module.values():
        verify_graph(graph, stage)


def verify_graph(graph: Graph, stage: str) -> None:
    """Raises VerificationError naming the stage, the graph and the node."""
    names = [value.name for value in graph.inputs]
    if len(set(names)) != len(names):
        raise VerificationError(f"after {stage}: graph {graph.name} has two inputs with the same name")
    defined = set(graph.inputs)
    for index, node in enumerate(graph.nodes):
        if problem := node_problem(node, defined):
            raise VerificationError(f"after {stage}: graph {graph.name}: {problem}\n{neighbours(graph, index)}")
        if "body" in node.attributes:
            verify_graph(node.body, stage)
        defined.update(node.results)
    for name, value in graph.outputs.items():
        if value not in defined and not isinstance(value, Literal):
            raise VerificationError(f"after {stage}: graph {graph.name}: output {name} is not defined in it")


def verify_outputs(before: Graph, after: Graph, stage: str, adds: str = "") -> None:
    """Raises VerificationError if a graph does not return what it returned before: other names, or another type.

    New names may begin with `adds`.
    """
    added = [name for name in after.outputs if not (adds and name.startswith(adds))]
    for name in (*before.outputs, *added):
        types = [str(graph.outputs[name].type) if name in graph.outputs else "nothing" for graph in (before, after)]
        if types[0] != types[1]:
            message = f"output {name} was {types[0]} and is {types[1]}"
            raise VerificationError(f"after {stage}: graph {after.name}: {message}")


def node_problem(node: Node, defined: set[Value]) -> str | None:
    for operand in node.operands:
        if operand not in defined and not isinstance(operand, Literal):
            return "an operand is not defined before its use"
    for result in node.results:
        if result in defined or result.node is not node:
            return "a result is defined twice or belongs to another node"
    try:
        _, inferred = infer(node.op, tuple([operand.type for operand in node.operands]), node.attributes)
    except TypeRuleError as error:
        return f"the op's rule refuses it: {error}"
    if inferred != tuple([result.type for result in node.results]):
        return f"the op's rule gives {', '.join(map(str, inferred))}"
    return None


def neighbours(graph: Graph, index: int) -> str:
    names = {operand: "undefined" for node in graph.nodes for operand in node.operands} | number(graph)
    lines = []
    for i in range(max(0, index - 2), min(len(graph.nodes), index + 3)):
        mark = "-->" if i == index else "   "
        lines.append(f"{mark} {print_node(graph.nodes[i], names, 2)}")
    return "\n".join(lines)
