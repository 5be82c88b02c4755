"""A cell and a sequence to one `scan` node: the cell's body becomes a separate graph that runs over the time axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.elaborate import calls
from compiler.elaborate.cautions import warn_about_second_use
from compiler.elaborate.context import Context
from compiler.elaborate.evaluator import Site
from compiler.elaborate.frames import CONTINUE, Frame
from compiler.elaborate.signatures import Given
from compiler.elaborate.values import POISON, Closure, Poison, describe_type, is_number, is_tensor, poisoned
from compiler.elaborate.variables import filled
from compiler.ir.graph import Graph, Value
from compiler.ir.types import TypeRuleError

INPUT_ORDER = ("carry", "sequence", "constant")


def scan_cell(site: Site, cell: Closure, x: Value, reverse: bool) -> Value | list[Value] | Poison:
    """Runs a cell over axis 1 of `x: [B, T, …]`; gives `[B, T, …]` for each returned tensor, in order of processing."""
    if x.type.rank < 2 or not isinstance(x.type.shape[1], int):
        raise TypeRuleError("the sequence has no time axis", "f32[B, T, …]", str(x.type))
    evaluator = site.evaluator
    steps_first = swap_time(site, x)
    body = Context(Graph("body"), evaluator.context)
    element = body.input("x", x.type.with_shape(steps_first.type.shape[1:]), "sequence")
    with evaluator.within(body):
        frame = calls.enter(evaluator, cell, [Given(element, site.span)], site.span, site.frame)
        if isinstance(frame, Poison):
            return POISON
        result = evaluator.run(cell.declaration.body, frame)
        carries = [next_carry(site, name, frame) for name in frame.carries]
        outputs = step_outputs(site, cell, result, frame)
        if poisoned(*carries, *outputs):
            return POISON
        body.graph.outputs |= {f"y{i}": body.localize(value) for i, value in enumerate([*carries, *outputs])}
    body.graph.inputs.sort(key=lambda value: INPUT_ORDER.index(value.kind))
    results = site.emit(
        "scan",
        *(carry.start for carry in frame.carries.values()),
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
    value = stacked[0] if len(stacked) == 1 else stacked
    calls.leave(evaluator, frame, value, x, site.span, site.frame)
    warn_about_second_use(evaluator, cell, frame, site.span, site.frame)
    return value


def next_carry(site: Site, name: str, frame: Frame) -> Any:
    """The value that the next step reads: the one that the cell assigned last."""
    value, carry, evaluator = frame.variables[name], frame.carries[name], site.evaluator
    if is_number(value):
        value = filled(evaluator, value, carry.start.type, carry.span, frame)
    if poisoned(value) or (is_tensor(value) and value.type == carry.start.type):
        return value
    message = f"the carry {name} cannot change its type from step to step"
    return evaluator.fail(carry.span, frame, message, str(carry.start.type), describe_type(value), [value])


def step_outputs(site: Site, cell: Closure, result: Any, frame: Frame) -> Sequence[Any]:
    """The tensors that a step returns."""
    outputs = result if isinstance(result, list) else [result]
    if poisoned(result) or (outputs and all(map(is_tensor, outputs))):
        return outputs
    if result is CONTINUE and cell.declaration.damaged:
        return [POISON]
    message = f"{cell.name} returns nothing" if result is CONTINUE else f"{cell.name} does not return tensors"
    found = "the end of the body" if result is CONTINUE else describe_type(result)
    return [site.evaluator.fail(cell.declaration.name.span, frame, message, "a return of tensors", found)]


def swap_time(site: Site, x: Value) -> Value:
    """`[B, T, …]` to `[T, B, …]` and back."""
    return site.emit("transpose", x, permutation=(1, 0, *range(2, x.type.rank)))
