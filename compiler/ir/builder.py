"""The only way to add nodes: infers result types from the op's own rule and records where the node comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from compiler.ir.graph import Graph, Literal, Node, Origin, Scalar, Value
from compiler.ir.inference import infer
from compiler.ir.op import known_ops
from compiler.ir.types import FLOATS, Dim, TensorType, TypeRuleError, extent, fits


class Builder:
    """Appends nodes to one graph.

    `builder.exp(x)`, `builder.sum(x, axes=(0,))`: every op of the table is a method that returns its result (a list if
    the op has several). Python numbers among the operands become literals with the dtype of the first tensor.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.origin: Origin | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in known_ops():
            raise AttributeError(name)
        return lambda *operands, **attributes: self.emit(name, operands, attributes)

    @contextmanager
    def at(self, origin: Origin | None) -> Iterator[None]:
        """Nodes added inside get this origin."""
        previous, self.origin = self.origin, origin
        try:
            yield
        finally:
            self.origin = previous

    def input(self, name: str, type: TensorType, kind: str) -> Value:
        value = Value(type, name, kind)
        self.graph.inputs.append(value)
        return value

    def emit(self, name: str, operands: Sequence[Value | Scalar], attributes: dict[str, Any]) -> Any:
        """Adds a node; raises TypeRuleError if the op's rule refuses the operands."""
        op = known_ops()[name]
        values = as_values(operands)
        complete, types = infer(op, tuple([value.type for value in values]), attributes)
        node = Node(op, values, dict(complete), [], self.origin)
        node.results = [Value(type, node=node) for type in types]
        self.graph.nodes.append(node)
        return node.results[0] if len(types) == 1 else node.results

    def emit_like(self, node: Node, operands: Sequence[Value], **changed: Any) -> list[Value]:
        """Adds a node with the op, the origin and, except for those changed, the attributes of another. Its results."""
        with self.at(node.origin):
            results = self.emit(node.op.name, operands, {**node.attributes, **changed})
        return [results] if isinstance(results, Value) else results

    def reuse(self, node: Node) -> list[Value]:
        """Adds a node of another graph unchanged; both graphs share it from now on, so it must not be changed."""
        self.graph.nodes.append(node)
        return node.results

    def inline(self, body: Graph, given: Sequence[Value]) -> list[Value]:
        """Adds the nodes of a body with these values in place of its inputs; returns its outputs."""
        new: dict[Value, Value] = dict(zip(body.inputs, given, strict=True))
        for node in body.nodes:
            operands = [new.get(operand, operand) for operand in node.operands]
            new.update(zip(node.results, self.emit_like(node, operands), strict=True))
        return [new.get(value, value) for value in body.outputs.values()]

    def extend_scan(self, node: Node, outputs: Sequence[Value]) -> list[Value]:
        """Makes a `scan` return the stacks of these values of its body as well; types come from the op's rule."""
        first, names = len(node.results), node.body.outputs
        for value in outputs:
            names[next(name for i in count(len(names)) if (name := f"y{i}") not in names)] = value
        types = node.op.result_types([value.type for value in node.operands], node.attributes)
        node.results += [Value(type, node=node) for type in types[first:]]
        return node.results[first:]

    def count(self, shape: Sequence[Dim]) -> Value | int:
        """The number of elements of a shape: a number, or a scalar f32[] if the shape contains the batch."""
        size = extent(shape)
        return size.factor if size.power == 0 else self.extent(factor=size.factor, power=size.power)


def literal(value: Scalar, dtype: str) -> Literal:
    """A scalar operand, converted to `dtype`; raises TypeRuleError if the dtype cannot represent it."""
    if dtype == "bool":
        return Literal(TensorType(dtype), value=bool(value))
    if not fits(value, dtype):
        found = str(value) if isinstance(value, float) or abs(value) < 2**64 else "a much larger number"
        raise TypeRuleError("the number does not fit the dtype", f"a value of {dtype}", found)
    return Literal(TensorType(dtype), value=float(value) if dtype in FLOATS else int(value))


def as_values(operands: Sequence[Value | Scalar]) -> list[Value]:
    dtypes = [operand.type.dtype for operand in operands if isinstance(operand, Value)]
    if len(dtypes) == len(operands):
        return list(operands)  # type: ignore[arg-type]
    number_dtype = next((dtype for dtype in dtypes if dtype != "bool"), "f32")
    return [
        operand
        if isinstance(operand, Value)
        else literal(operand, "bool" if isinstance(operand, bool) else number_dtype)
        for operand in operands
    ]
