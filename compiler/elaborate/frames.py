"""The declarations that are running while a program is elaborated, a frame for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate.context import Variable
from compiler.elaborate.values import CallRecord, Namespace
from compiler.ir.graph import Node, Value

CONTINUE = object()  # the result of a statement that did not return


@dataclass(eq=False)
class Carry:
    """A carry of a running cell: its initial value, in the graph around the scan, and its last assignment."""

    start: Value
    span: Span


@dataclass(eq=False)
class Frame:
    """A running declaration: its names, its path among the layers, and its caller."""

    namespace: Namespace
    name: str
    kind: str
    variables: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    counters: dict[str, int] = field(default_factory=dict)  # layers of each kind so far at this path
    persistent: dict[str, Variable] = field(default_factory=dict)  # params, states and slots by local name
    carries: dict[str, Carry] = field(default_factory=dict)
    totals: set[str] = field(default_factory=set)  # of a metric, by local name
    parameters: frozenset[str] = frozenset()
    call: CallRecord | None = None
    span: Span | None = None  # of the call
    caller: Frame | None = None
    damaged: bool = False
    depth: int = 0

    def is_inside(self, kind: str) -> bool:
        """Whether this frame, or one that called it, runs a declaration of a kind."""
        frame: Frame | None = self
        while frame and frame.kind != kind:
            frame = frame.caller
        return frame is not None


@dataclass(eq=False)
class MetricTotal:
    """A total of a metric: its value for one batch, which is combined over the batches of the data."""

    name: str
    value: Value
    span: Span
    frame: Frame


def root_frame(namespace: Namespace, span: Span | None = None) -> Frame:
    """The frame around everything: where the train block calls losses and optimizers."""
    return Frame(namespace, "", "fn", span=span)


@dataclass(frozen=True)
class ShapeStep:
    """A step in the history of a shape: the call that returned a tensor, and the tensor it was given."""

    name: str
    span: Span
    source: Value | None


def node_span(node: Node | None, otherwise: Span) -> Span:
    """The place of a node in the user's files."""
    origin = node.origin if node else None
    return Span(origin.file, origin.line, origin.column, origin.line, origin.column + 1) if origin else otherwise
