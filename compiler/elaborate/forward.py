"""A forward pass of a model: its inputs are declared, its body is run, and its outputs are named."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.elaborate import calls
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.frames import CONTINUE, Frame, root_frame
from compiler.elaborate.inputs import Conversions, declare_input, input_type
from compiler.elaborate.values import POISON, CallRecord, Closure, Poison, describe_type, is_tensor
from compiler.ir.graph import Value
from compiler.ir.types import Batch
from compiler.language import syntax


@dataclass(frozen=True)
class Forward:
    """A forward pass in the evaluator's graph, with the inputs and outputs by name."""

    evaluator: Evaluator
    frame: Frame
    inputs: dict[str, Value]
    outputs: dict[str, Value]


def run_forward(model: syntax.Function, evaluator: Evaluator, conversions: Conversions) -> Forward | None:
    """Runs a model in the evaluator's graph; None after reporting mistakes."""
    frame = model_frame(model, evaluator)
    inputs = declare_inputs(model, evaluator, conversions, frame) if frame else None
    if frame is None or inputs is None:
        return None
    result = evaluator.run(model.body, frame)
    if result is CONTINUE:
        result = POISON
        if not model.damaged:
            message = f"{model.name.id} returns nothing"
            evaluator.fail(model.name.span, frame, message, "a return of tensors", "the end of the body")
    outputs = None if isinstance(result, Poison) else name_outputs(model, result, evaluator, frame)
    if outputs is None:
        return None
    evaluator.context.graph.outputs |= outputs
    return Forward(evaluator, frame, inputs, outputs)


def model_frame(model: syntax.Function, evaluator: Evaluator) -> Frame | None:
    """The frame in which the model's body runs, with the defaults of its hyperparameters."""
    namespace, name = evaluator.namespace, model.name
    root = root_frame(namespace, name.span)
    closure = calls.with_hyperparameters(evaluator, Closure(model, namespace), [], name.span, root)
    if isinstance(closure, Poison):
        return None
    variables = {"B": Batch(), **(closure.hyperparameters or {})}
    frame = Frame(namespace, "", "model", variables, damaged=model.damaged)
    frame.parameters = frozenset(p.name.id for group in model.groups for p in group)
    frame.call = CallRecord(name.id, "", "model", False, False, name.span)
    return frame


def declare_inputs(
    model: syntax.Function, evaluator: Evaluator, conversions: Conversions, frame: Frame
) -> dict[str, Value] | None:
    inputs: dict[str, Value] = {}
    for parameter in model.groups[-1]:
        type = input_type(evaluator, parameter, frame)
        value = type and declare_input(evaluator, parameter.name, type, "input", conversions, frame)
        if value:
            inputs[parameter.name.id] = value
    frame.variables |= inputs
    return inputs if len(inputs) == len(model.groups[-1]) else None


def name_outputs(
    model: syntax.Function, result: Value | list[Value], evaluator: Evaluator, frame: Frame
) -> dict[str, Value] | None:
    """The outputs under the names that are returned, else as `output` or `output_1`, `output_2`, …"""
    values = result if isinstance(result, list) else [result]
    returned = next((s for s in reversed(model.body) if isinstance(s, syntax.Return)), None)
    if not values or not all(map(is_tensor, values)):
        span = returned.span if returned else model.name.span
        wrong = next((value for value in values if not is_tensor(value)), result)
        evaluator.fail(span, frame, "a model returns tensors", "a tensor", describe_type(wrong))
        return None
    expressions = returned.values if returned and len(returned.values) == len(values) else ()
    names = [e.id for e in expressions if isinstance(e, syntax.Name)]
    if len(set(names)) != len(values):
        names = ["output"] if len(values) == 1 else [f"output_{i}" for i in range(1, len(values) + 1)]
    return dict(zip(names, values, strict=True))
