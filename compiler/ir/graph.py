"""The graph IR in one file: values, nodes and graphs in static single assignment form.

    Graph   = name, inputs: Value*, nodes: Node*, outputs: {name: Value}
    Node    = op, operands: Value*, attributes, results: Value*, origin     (the attribute `body` of a scan or of a
                                                                              fused region is a Graph)
    Value   = type; if it is a graph input, also name and kind
    Literal = a Value that is a scalar known at compile time; printed in place, never a node
    Module  = {name: Graph}

A body is isolated: it uses its own inputs and literals, nothing from the graph around it. Only `builder.Builder` adds
nodes, and it infers every type from the op's own rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.ir.op import Op
from compiler.ir.types import TensorType

Scalar = int | float | bool
VARIABLES = ("param", "state", "slot", "counter", "folded")  # kinds of inputs that the graphs share, in this order


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in the model a node comes from: the source position, the layer's path, and whether autodiff made it."""

    file: str
    line: int
    column: int
    path: str = ""
    backward: bool = False

    def in_backward(self) -> Origin:
        return Origin(self.file, self.line, self.column, self.path, True)

    @property
    def place_and_layer(self) -> tuple[str, str]:
        """The source position, and the layer's path, for messages."""
        return f"{self.file}:{self.line}:{self.column}", self.path

    def __str__(self) -> str:
        words = [f"{self.file}:{self.line}:{self.column}", self.path, "(backward)" if self.backward else ""]
        return " ".join(filter(None, words))


@dataclass(eq=False, slots=True)
class Value:
    """One tensor. Graph inputs carry a name and a kind: input, target, param, state, slot, counter, carry …"""

    type: TensorType
    name: str = ""
    kind: str = ""
    node: Node | None = field(default=None, repr=False)


@dataclass(eq=False, slots=True)
class Literal(Value):
    """A scalar known at compile time."""

    value: Scalar = 0


@dataclass(eq=False, slots=True)
class Node:
    """One application of an op."""

    op: Op
    operands: list[Value]
    attributes: dict[str, Any]
    results: list[Value]
    origin: Origin | None = None

    @property
    def result(self) -> Value:
        (result,) = self.results
        return result

    @property
    def body(self) -> Graph:
        return self.attributes["body"]

    @property
    def reduced_axes(self) -> tuple[int, ...]:
        """The axes of the operands along which the op reduces; none if it does not reduce."""
        if not self.op.reduces:
            return ()
        return self.attributes["axes"] if "axes" in self.attributes else (self.attributes["axis"],)


@dataclass(eq=False, slots=True)
class Graph:
    """A function of tensors; the nodes are in an order in which they can run."""

    name: str
    inputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, Value] = field(default_factory=dict)

    def input(self, name: str) -> Value:
        return next(value for value in self.inputs if value.name == name)

    def of_kind(self, *kinds: str) -> list[Value]:
        return [value for value in self.inputs if value.kind in kinds]

    def walk(self) -> Iterator[Node]:
        """All nodes, bodies included, outer before inner."""
        for node in self.nodes:
            yield node
            if "body" in node.attributes:
                yield from node.body.walk()


Module = dict[str, Graph]


def literal_key(value: Value) -> Any:
    """Equal for equal operands: the object itself, or the type and value of a literal (0.0 and -0.0 differ)."""
    return (value.type, repr(value.value)) if isinstance(value, Literal) else value


def needed_nodes(nodes: Sequence[Node], values: Iterable[Value]) -> list[Node]:
    """The nodes that some values depend on."""
    needed, found = set(values), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.results):
            needed.update(node.operands)
            found.append(node)
    return found[::-1]


def depending_on(roots: Iterable[Value], nodes: Sequence[Node]) -> set[Value]:
    """The float values that depend on any of `roots`, and the roots."""
    active = set(roots)
    for node in nodes:
        if any(operand in active for operand in node.operands):
            active.update(result for result in node.results if result.type.is_float)
    return active


def readers_of(graph: Graph) -> dict[Value, list[Node | None]]:
    """The nodes that read each value; None for the outputs of the graph."""
    readers: dict[Value, list[Node | None]] = {value: [] for node in graph.nodes for value in node.results}
    readers |= {value: [] for value in graph.inputs}
    for node in graph.nodes:
        for value in node.operands:
            if value in readers:
                readers[value].append(node)
    for value in graph.outputs.values():
        readers.setdefault(value, []).append(None)
    return readers
