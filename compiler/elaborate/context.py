"""The graphs under construction: where nodes go, which variables the model has, and what a scan captures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.diagnostics import Span
from compiler.ir.builder import Builder, literal
from compiler.ir.graph import Graph, Literal, Origin, Scalar, Value
from compiler.ir.types import Batch, Dim, TensorType, TypeRuleError
from runtime.program import FIRST_EXAMPLE

LARGEST_GRAPH = 100_000  # nodes; endless expansion is stopped within five seconds
COUNTERS = {"seed": TensorType("i64"), "step": TensorType("i32")}


class TooLarge(TypeRuleError):
    """The graph is too large; continuing would only take time."""


@dataclass
class Variable:
    """A tensor that is kept from step to step: a param, a state, or a slot of the optimizer."""

    name: str
    type: TensorType
    kind: str
    span: Span


@dataclass
class Variables:
    """All variables of a model, and the graph that computes their initial values."""

    by_name: dict[str, Variable] = field(default_factory=dict)
    init: Context = field(default_factory=lambda: Context(Graph("init")))
    streams: int = 0  # random ops so far; each draws from its own stream

    def next_stream(self) -> int:
        self.streams += 1
        return self.streams - 1


class Context:
    """One graph being built. The body of a scan is a context whose parent is the graph around it."""

    def __init__(self, graph: Graph, parent: Context | None = None):
        self.graph = graph
        self.builder = Builder(graph)
        self.parent = parent
        self.own: set[Value] = set()
        self.captured: dict[Value, Value] = {}
        self.variables: dict[str, Value] = {}

    @property
    def root(self) -> Context:
        return self.parent.root if self.parent else self

    def input(self, name: str, type: TensorType, kind: str) -> Value:
        value = self.builder.input(name, type, kind)
        self.own.add(value)
        return value

    def counter(self, name: str) -> Value:
        """The graph input `seed: i64[]` or `step: i32[]`, created on first use."""
        return self.variable(name, COUNTERS[name], "counter")

    def first_example(self) -> Value:
        """The graph input `batch.first: i64[]`, created on first use: the place in the data of the first example."""
        return self.variable(FIRST_EXAMPLE, TensorType("i64"), "place")

    def variable(self, name: str, type: TensorType, kind: str) -> Value:
        """The graph input of a variable, created on first use."""
        root = self.root
        if name not in root.variables:
            root.variables[name] = root.input(name, type, kind)
        return root.variables[name]

    def emit(self, name: str, operands: Sequence[Value | Scalar], attributes: dict[str, Any], origin: Origin) -> Any:
        """Adds a node; tensors of a graph around this one become inputs of the scan. Raises TypeRuleError."""
        if len(self.graph.nodes) >= LARGEST_GRAPH:
            raise TooLarge("the model is too large", f"at most {LARGEST_GRAPH} operations")
        local = [self.localize(operand) if isinstance(operand, Value) else operand for operand in operands]
        self.builder.origin = origin  # set directly: the context manager `at` would take longer than the rest
        try:
            result = self.builder.emit(name, local, attributes)
        finally:
            self.builder.origin = None
        self.own.update(self.graph.nodes[-1].results)
        return result

    def localize(self, value: Value) -> Value:
        """The value as this graph sees it; raises TypeRuleError if it does not exist yet when this graph runs."""
        if isinstance(value, Literal) or value in self.own:
            return value
        if value not in self.captured:
            if self.parent is None:
                message = "this tensor does not exist yet when this is computed"
                raise TypeRuleError(message, "numbers, shapes, or tensors made from them", f"a tensor {value.type}")
            outer = self.parent.localize(value)
            self.captured[value] = self.input(f"captured_{len(self.captured)}", outer.type, "constant")
        return self.captured[value]

    def scalar(self, dim: Dim, origin: Origin) -> Value:
        """A dimension as a scalar f32[]: a literal, or the run-time batch."""
        if isinstance(dim, Batch):
            return self.emit("extent", (), {"factor": dim.factor, "power": 1}, origin)
        return literal(dim, "f32")
