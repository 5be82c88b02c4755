"""Metrics with totals: `total` statements, and the graph of what follows from the totals of all data.

A metric runs once for each graph of a batch. The values of its totals become outputs of that graph, and are combined
over the batches. The nodes from the totals to what the metric returns are copied into a separate graph, in which
the totals are inputs and all floats are f64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from compiler.elaborate.evaluator import Evaluator, Site
from compiler.elaborate.frames import Frame, MetricTotal
from compiler.elaborate.signatures import ELLIPSIS, as_shape
from compiler.elaborate.values import POISON, Poison, describe, describe_type, is_tensor, poisoned
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.op import BATCH, LOOP
from compiler.ir.types import FLOATS, Batch, TensorType
from compiler.language import syntax
from compiler.language.formatter import format_type

WIDE = "f64"  # totals over all data, and what follows from them

# Declarations ---------------------------------------------------------------------------------------------------------


def declare_total(evaluator: Evaluator, node: syntax.Declare, frame: Frame) -> None:
    """`total name: type = expression`; a mistake leaves the name poisoned."""
    name = node.name.id
    frame.variables[name], old = POISON, name in frame.parameters or name in frame.totals
    if frame.kind != "metric":
        found = f"a total in {'an' if frame.kind == 'optimizer' else 'a'} {frame.kind}"
        evaluator.fail(node.span, frame, "a total cannot be declared here", "a total in a metric", found)
    elif evaluator.context.parent:
        evaluator.fail(node.span, frame, "a total cannot be declared inside a cell", "a total of the whole batch", name)
    elif old:
        evaluator.fail(node.name.span, frame, f"{name} is declared twice", "one declaration of each name", name)
    elif node.type is None or node.value is None:
        lacks = "a type" if node.type is None else "a value"
        expected = f"total {name}: f32[] = sum(…)"
        evaluator.fail(node.span, frame, f"the total {name} needs {lacks}", expected, f"no {lacks[2:]}")
    else:
        value = total_value(evaluator, node, node.type, node.value, frame)
        if not isinstance(value, Poison):
            frame.variables[name] = value
            evaluator.totals.append(MetricTotal(name, value, node.name.span, frame))
    frame.totals.add(name)


def total_value(
    evaluator: Evaluator,
    node: syntax.Declare,
    pattern: syntax.TypeExpression,
    expression: syntax.Expression,
    frame: Frame,
) -> Value | Poison:
    """The value of a total for this batch: a separate node, which no other use of the same expression is."""
    type = total_type(evaluator, pattern, frame)
    value = evaluator.evaluate(expression, frame)
    if isinstance(type, Poison) or poisoned(value):
        return POISON
    if isinstance(value, Batch):
        value = Site(evaluator, expression.span, frame).scalar(value, type.dtype)
    if not is_tensor(value) or value.type != type:
        message = f"the total {node.name.id} has the wrong type"
        return evaluator.fail(expression.span, frame, message, str(type), describe_type(value), [value])
    return evaluator.guarded(node.span, frame, lambda site: site.emit("reshape", value, shape=type.shape))


def total_type(evaluator: Evaluator, pattern: syntax.TypeExpression, frame: Frame) -> TensorType | Poison:
    """The declared type: floats, in a shape that does not depend on the batch. `...` is that of the signature."""
    dims: list[Any] = []
    for dim in pattern.dims:
        if isinstance(dim, syntax.EllipsisDim):
            dims += frame.variables.get(ELLIPSIS, [None])
        else:
            dims.append(evaluator.evaluate(dim, frame))
    if poisoned(*dims):
        return POISON
    shape = as_shape(dims)
    if shape is None or not all(isinstance(dim, int) for dim in shape) or pattern.dtype not in FLOATS:
        message, expected = "not a type for a total", "f32 or f64, and a shape without the batch"
        shown = ", ".join("..." if dim is None else str(dim) for dim in dims)
        written, meant = format_type(pattern), f"{pattern.dtype}[{shown}]"
        found = written if written == meant else f"{written}, which is {meant}"
        return evaluator.fail(pattern.span, frame, message, expected, found)
    return evaluator.guarded(pattern.span, frame, lambda _: TensorType(pattern.dtype, shape))


# What follows from them -----------------------------------------------------------------------------------------------


class NotFromTotals(Exception):
    """What a metric returns depends on something else than its totals: on `found`, which `node` reads or makes."""

    def __init__(self, node: Node | None, found: str):
        super().__init__(found)
        self.node, self.found = node, found


def follow(graph: Graph, totals: Mapping[str, Value], results: Mapping[str, Value], batch: Graph) -> None:
    """Adds to `graph` what follows from totals: `results`, values of the graph `batch`, under their names.

    Raises NotFromTotals.
    """
    builder, new = Builder(graph), dict[Value, Value]()
    for name, value in totals.items():
        new[value] = builder.input(name, wide(value.type), "total")
    needed = between(results.values(), new)
    for node in batch.nodes:
        if node in needed:
            operands = [new[each] if each in new else widened(each, node) for each in node.operands]
            changed = {"dtype": WIDE} if node.attributes.get("dtype") in FLOATS else {}
            new.update(zip(node.results, builder.emit_like(node, operands, **changed), strict=True))
    graph.outputs |= {name: new[value] if value in new else widened(value, None) for name, value in results.items()}


def between(results: Iterable[Value], totals: Collection[Value]) -> set[Node]:
    """The nodes from totals to results. Raises NotFromTotals at the first that depends on the batch in another way."""
    found: set[Node] = set()
    pending = [(value, None) for value in results]
    while pending:
        value, reader = pending.pop()
        if value in totals or value.node in found or isinstance(value, Literal):
            continue
        node = value.node
        if node is None or BATCH in node.op.traits or LOOP in node.op.traits or has_batch(value):
            raise NotFromTotals(reader or node, describe_source(value))
        found.add(node)
        pending += [(operand, node) for operand in node.operands]
    return found


def has_batch(value: Value) -> bool:
    return any(isinstance(dim, Batch) for dim in value.type.shape)


def describe_source(value: Value) -> str:
    """What a value is that is not a total."""
    node = value.node
    if node is None:
        return f"the {value.kind} {value.name}, {value.type}"
    if node.op.name == "extent":
        return "the number of examples in a batch"
    return "a scan" if LOOP in node.op.traits else describe(value)


def wide(type: TensorType) -> TensorType:
    return type.with_dtype(WIDE) if type.is_float else type


def widened(value: Value, reader: Node | None) -> Literal:
    """A literal of the wide graph."""
    if not isinstance(value, Literal):
        raise NotFromTotals(reader, describe_source(value))
    return Literal(wide(value.type), value=value.value)
