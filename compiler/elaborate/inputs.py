"""The inputs of a graph: a model's inputs and the targets of its loss, converted from their form in the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from compiler.diagnostics import Span
from compiler.elaborate.evaluator import Evaluator, Site
from compiler.elaborate.frames import Frame, ShapeStep
from compiler.elaborate.signatures import ELLIPSIS, as_shape
from compiler.elaborate.values import Poison, describe, poisoned
from compiler.elaborate.variables import RESERVED
from compiler.ir.graph import Value
from compiler.ir.types import Batch, TensorType
from compiler.language import syntax
from compiler.language.formatter import format_type
from runtime.datasets.dataset import read_as, usual_scale
from runtime.errors import did_you_mean

ALL_INPUTS = "*"  # no name of an array


class Storage(Protocol):
    """How a data set stores an array; the compiled step converts it."""

    @property
    def dtype(self) -> str: ...
    @property
    def scale(self) -> float | None: ...


@dataclass
class Conversions:
    """How arrays become inputs and targets of a model: how they are stored, and the factors of their values.

    `chosen` are the factors of the train block by name, under ALL_INPUTS that of all inputs without their own. After
    them come factors in `storage`, which a run has settled. `scales` collects the factors that are used, and
    `chosen_scales` the names of those that the train block gives.
    """

    storage: Mapping[str, Storage]
    chosen: Mapping[str, float] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    chosen_scales: dict[str, None] = field(default_factory=dict)  # an ordered set

    def scale(self, name: str, kind: str, stored: Storage) -> float:
        """The factor of a float input or target; noted in `scales`."""
        scale, key = stored.scale, name if name in self.chosen or kind != "input" else ALL_INPUTS
        if key in self.chosen:
            scale = self.chosen[key]
            self.chosen_scales[name] = None
        self.scales[name] = usual_scale(stored.dtype, kind) if scale is None else scale
        return self.scales[name]


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


def check_chosen(
    conversions: Conversions, floats: Mapping[str, bool], evaluator: Evaluator, span: Span, frame: Frame
) -> None:
    """Reports names in `scale = arrays(…)` that are no float inputs or targets; `floats` says which are floats."""
    for name in conversions.chosen:
        if name != ALL_INPUTS and not floats.get(name):
            scalable = [each for each, is_float in floats.items() if is_float]
            found = f"{name}, which has whole numbers" if name in floats else name
            hint = did_you_mean(name, scalable)
            message = f"there is no float input or target {name} to scale" + (f"; {hint}" if hint else "")
            evaluator.fail(span, frame, message, ", ".join(scalable) or "no array: none is float", found)


def show_size(dim: Any) -> str:
    return "..." if isinstance(dim, syntax.EllipsisDim) else str(dim) if isinstance(dim, Batch | int) else describe(dim)


def declare_input(
    evaluator: Evaluator, name: syntax.Name, type: TensorType, kind: str, conversions: Conversions, frame: Frame
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
    stored = conversions.storage.get(name.id)
    dtype = read_as(stored.dtype, type.dtype) if stored else type.dtype
    value = evaluator.context.input(name.id, type.with_dtype(dtype), kind)
    site = Site(evaluator, name.span, frame)
    value = site.cast(value, type.dtype)
    scale = conversions.scale(name.id, kind, stored) if stored and type.is_float else 1.0
    if scale != 1:
        value = site.emit("mul", value, scale)
    evaluator.history[value] = ShapeStep(f"the {kind} {name.id}", evaluator.site(name.span, frame)[0], None)
    return value
