"""The table of a model's layers with their output shapes and parameter counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from compiler.elaborate.model import ElaboratedModel
from compiler.elaborate.values import CallRecord, is_tensor
from compiler.ir.types import Batch, TensorType

TITLES = ("Layer", "Output shape", "Parameters")


@dataclass(frozen=True)
class LayerRow:
    """One line of the table."""

    layer: str
    shape: str
    parameters: int


def rows(model: ElaboratedModel) -> Iterator[LayerRow]:
    """The layers that the model's author called, in order of execution; library layers are not expanded."""
    for call in model.call.children:
        yield from call_rows(call, model)


def call_rows(call: CallRecord, model: ElaboratedModel) -> Iterator[LayerRow]:
    """One row per library layer or piped function; a layer from the file expands to its parts and its own params."""
    if call.from_library or not call.children:
        if call.kind != "fn" or call.piped:
            yield row(call, sum(count(name, model) for name in all_variables(call)))
        return
    for child in call.children:
        yield from call_rows(child, model)
    if call.variables:
        yield row(call, sum(count(name, model) for name in call.variables))


def all_variables(call: CallRecord) -> Iterator[str]:
    yield from call.variables
    for child in call.children:
        yield from all_variables(child)


def count(name: str, model: ElaboratedModel) -> int:
    return prod(int(dim) for dim in model.variables.by_name[name].type.shape)  # type: ignore[arg-type]


def row(call: CallRecord, parameters: int) -> LayerRow:
    label = f"{call.path} ({call.name})" if call.kind != "fn" else call.name
    return LayerRow(label, show_output(call.output), parameters)


def show_output(output: Any) -> str:
    if isinstance(output, list):
        return ", ".join(map(show_output, output))
    return show_type(output.type) if is_tensor(output) else ""


def show_type(type: TensorType) -> str:
    dims = ["None" if isinstance(dim, Batch) else str(dim) for dim in type.shape]
    return "(" + ", ".join(dims) + ("," if len(dims) == 1 else "") + ")"


def totals(model: ElaboratedModel) -> tuple[int, int]:
    """Numbers of (trainable, not trainable) parameters: those in params, and in states."""
    kinds = {name: variable.kind for name, variable in model.variables.by_name.items()}
    trainable = sum(count(name, model) for name, kind in kinds.items() if kind == "param")
    return trainable, sum(count(name, model) for name, kind in kinds.items() if kind == "state")


def format_summary(model: ElaboratedModel) -> str:
    """The table as text, with totals."""
    inputs = [value for value in model.module["predict"].inputs if value.kind == "input"]
    lines = [(f"{value.name} (input)", show_type(value.type), "0") for value in inputs]
    lines += [(r.layer, r.shape, f"{r.parameters:,}") for r in rows(model)]
    widths = [max(len(line[i]) for line in (TITLES, *lines)) for i in range(3)]

    def show(line: tuple[str, ...]) -> str:
        return f"{line[0]:<{widths[0]}}  {line[1]:<{widths[1]}}  {line[2]:>{widths[2]}}".rstrip()

    rule = "─" * (sum(widths) + 4)
    trainable, fixed = totals(model)
    footer = [f"Total parameters: {trainable + fixed:,}", f"Trainable: {trainable:,}", f"Not trainable: {fixed:,}"]
    return "\n".join([f"Model {model.name}", rule, show(TITLES), rule, *map(show, lines), rule, *footer])
