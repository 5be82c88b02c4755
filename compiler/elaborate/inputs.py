"""The inputs of a graph: a model's inputs and the targets of its loss, converted from their form in the data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from compiler.elaborate.evaluator import Evaluator, Site
from compiler.elaborate.frames import Frame, ShapeStep
from compiler.elaborate.signatures import ELLIPSIS, as_shape
from compiler.elaborate.values import Poison, describe, poisoned
from compiler.elaborate.variables import RESERVED
from compiler.ir.graph import Value
from compiler.ir.types import Batch, TensorType
from compiler.language import syntax
from compiler.language.formatter import format_type


class Storage(Protocol):
    """How a data set stores an array; the compiled step converts it."""

    @property
    def dtype(self) -> str: ...
    @property
    def scale(self) -> float: ...


def input_type(evaluator: Evaluator, parameter: syntax.Parameter, frame: Frame) -> TensorType | None:
    """The type of an input or target: every size is known, and the first is the batch."""
    name, pattern = parameter.name.id, parameter.type
    if pattern is None:
        expected = f"{name}: f32[B, …]"
        if parameter.default is not None:
            expected += f"; or, as a hyperparameter, in a first group: ({name}=…)(…)"
        evaluator.fail(parameter.span, frame, f"{name} needs a type", expected, "no type")
        return None
    dims: list[Any] = []
    for position, dim in enumerate(pattern.dims):
        if isinstance(dim, syntax.EllipsisDim):
            dims += frame.variables.get(ELLIPSIS, [dim])
        elif isinstance(dim, syntax.Name) and dim.id not in frame.variables and not frame.namespace.find(dim.id):
            if position:
                expected = "a number, or a size of an output"
                evaluator.fail(dim.span, frame, f"the size {dim.id} of {name} is not known", expected, dim.id)
                return None
            frame.variables[dim.id] = Batch()
            dims.append(Batch())
        else:
            dims.append(evaluator.evaluate(dim, frame))
    if poisoned(*dims):
        return None
    shape = as_shape(dims)
    if not shape or shape[0] != Batch() or not all(isinstance(dim, int) for dim in shape[1:]):
        found, shown = format_type(pattern), f"{pattern.dtype}[{', '.join(map(show_size, dims))}]"
        found += f", which is {shown}" if shown != found else ""
        message = f"the shape of {name} is not the batch followed by whole numbers"
        evaluator.fail(pattern.span, frame, message, f"a type such as {pattern.dtype}[B, 28, 28]", found)
        return None
    type = evaluator.guarded(pattern.span, frame, lambda _: TensorType(pattern.dtype, shape))
    return None if isinstance(type, Poison) else type


def show_size(dim: Any) -> str:
    return "..." if isinstance(dim, syntax.EllipsisDim) else str(dim) if isinstance(dim, Batch | int) else describe(dim)


def declare_input(
    evaluator: Evaluator, name: syntax.Name, type: TensorType, kind: str, storage: Mapping[str, Storage], frame: Frame
) -> Value | None:
    """An input or target of the graph; None after reporting that its name is in use."""
    other = next((value for value in evaluator.context.graph.inputs if value.name == name.id), None)
    if other is not None or name.id in RESERVED:
        found = f"the {other.kind} {name.id}, {other.type}" if other is not None else name.id
        expected = "another name: training uses this one"
        if other is not None and other.kind == "input":
            expected = f"the type of the model's input {name.id}, or another name"
        evaluator.fail(name.span, frame, f"the {kind} {name.id} cannot have this name", expected, found)
        return None
    stored = storage.get(name.id)
    dtype = stored.dtype if stored else type.dtype
    value = evaluator.context.input(name.id, type.with_dtype(dtype), kind)
    site = Site(evaluator, name.span, frame)
    value = site.cast(value, type.dtype)
    if stored and stored.scale != 1 and type.is_float:
        value = site.emit("mul", value, stored.scale)
    evaluator.history[value] = ShapeStep(f"the {kind} {name.id}", evaluator.site(name.span, frame)[0], None)
    return value
