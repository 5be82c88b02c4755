"""IR as text: typed, one line per node, numbered from zero in each graph. `reader.py` reads it back."""

from __future__ import annotations

import json
from typing import Any

from compiler.ir.graph import Graph, Literal, Module, Node, Value
from compiler.ir.types import show_shape

INDENT = "  "
# A bare literal of this Python type is read back with this dtype; any other dtype is written out, `3:i64`.
PLAIN_LITERALS = {float: "f32", int: "i32", bool: "bool"}


def print_module(module: Module) -> str:
    return "\n\n".join(print_graph(graph) for graph in module.values()) + "\n"


def print_graph(graph: Graph, depth: int = 0) -> str:
    pad = INDENT * depth
    names = number(graph)
    inputs = ", ".join(f"%{value.name}: {value.type} {value.kind}".rstrip() for value in graph.inputs)
    outputs = ", ".join(f"{name}={show_operand(value, names)}" for name, value in graph.outputs.items())
    lines = [f"graph {graph.name}({inputs}) {{"]
    lines += [f"{pad}{INDENT}{print_node(node, names, depth + 1)}" for node in graph.nodes]
    lines += [f"{pad}{INDENT}return {outputs}".rstrip(), f"{pad}}}"]
    return "\n".join(lines)


def number(graph: Graph) -> dict[Value, str]:
    """The printed name of every value of a graph (bodies have their own)."""
    results = (value for node in graph.nodes for value in node.results)
    return {value: value.name for value in graph.inputs} | {value: str(i) for i, value in enumerate(results)}


def print_node(node: Node, names: dict[Value, str], depth: int = 0) -> str:
    results = ", ".join(f"%{names[value]}: {value.type}" for value in node.results)
    arguments = [show_operand(operand, names) for operand in node.operands]
    arguments += [f"{name}={show_attribute(value, depth)}" for name, value in node.attributes.items()]
    origin = f"  // {node.origin}" if node.origin else ""
    return f"{results} = {node.op.name}({', '.join(arguments)}){origin}"


def show_operand(value: Value, names: dict[Value, str]) -> str:
    if not isinstance(value, Literal):
        return f"%{names[value]}"
    text = json.dumps(value.value) if isinstance(value.value, bool) else repr(value.value)
    return text if PLAIN_LITERALS[type(value.value)] == value.type.dtype else f"{text}:{value.type.dtype}"


def show_attribute(value: Any, depth: int) -> str:
    if isinstance(value, Graph):
        return print_graph(value, depth)
    if isinstance(value, tuple):
        return show_shape(show_attribute(item, depth) for item in value)  # type: ignore[arg-type]
    if isinstance(value, bool | str):
        return json.dumps(value)
    return str(value) if not isinstance(value, float) else repr(value)
