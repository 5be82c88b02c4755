"""A cell and a sequence to one `scan` node: the cell's body becomes a graph of its own, run over the time axis."""

from __future__ import annotations

from compiler.elaborate.context import Context, Site
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.signatures import Given
from compiler.elaborate.values import POISON, Closure, Poison, describe_type, is_tensor
from compiler.ir.graph import Graph, Value
from compiler.ir.types import TensorType, TypeRuleError


def scan_cell(site: Site, cell: Closure, x: Value, reverse: bool) -> Value | list[Value] | Poison:
    """Runs a cell over axis 1 of `x: [B, T, …]`; returns `[B, T, …]` per returned tensor, in order of processing."""
    if x.type.rank < 2 or not isinstance(x.type.shape[1], int):
        raise TypeRuleError("the sequence has no time axis", "f32[B, T, …]", str(x.type))
    evaluator: Evaluator = site.evaluator
    steps_first = swap_time(site, x)
    body = Context(Graph("body"), evaluator.context)
    element = body.input("x", TensorType(x.type.dtype, steps_first.type.shape[1:]), "sequence")
    with evaluator.within(body):
        frame = evaluator.enter(cell, [Given(element, site.span)], site.span, site.frame)
        if isinstance(frame, Poison):
            return POISON
        result = evaluator.run(cell.declaration.body, frame)
        outputs = result if isinstance(result, list) else [result]
        carries = {name: frame.variables[name] for name in frame.carries}
        for name, value in carries.items():
            start = frame.carries[name]
            if isinstance(value, Poison):
                return POISON
            if not is_tensor(value) or value.type != start.type:
                raise TypeRuleError(f"the carry {name} changes its type", str(start.type), describe_type(value))
        if any(isinstance(output, Poison) for output in outputs):
            return POISON
        if not all(map(is_tensor, outputs)):
            raise TypeRuleError("a cell returns tensors", "a tensor", describe_type(result))
        for i, value in enumerate([*carries.values(), *outputs]):
            body.graph.outputs[f"y{i}"] = body.localize(value)
    order = ("carry", "sequence", "constant")
    body.graph.inputs.sort(key=lambda value: order.index(value.kind))
    results = site.emit(
        "scan",
        *frame.carries.values(),
        steps_first,
        *body.captured,
        carries=len(carries),
        sequences=1,
        reverse=reverse,
        body=body.graph,
    )
    results = results if isinstance(results, list) else [results]
    stacked = [swap_time(site, y) for y in results[len(carries) :]]
    stacked = [site.emit("flip", y, axes=(1,)) for y in stacked] if reverse else stacked
    evaluator.leave(frame, stacked[0], [], site.span, site.frame)
    return stacked[0] if len(stacked) == 1 else stacked


def swap_time(site: Site, x: Value) -> Value:
    """`[B, T, …]` to `[T, B, …]` and back."""
    return site.emit("transpose", x, permutation=(1, 0, *range(2, x.type.rank)))
