"""The loss and the metrics of a train block: their targets become inputs of a graph, their values its outputs."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.diagnostics import Span
from compiler.elaborate import calls
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.forward import Forward
from compiler.elaborate.frames import Frame
from compiler.elaborate.inputs import Conversions, declare_input, input_type
from compiler.elaborate.signatures import Given, agree, counted, match
from compiler.elaborate.training import TrainBlock
from compiler.elaborate.values import Builtin, Closure, Poison, describe, describe_type, is_tensor
from compiler.ir.graph import Value
from compiler.ir.types import TensorType
from compiler.language.syntax import Parameter

Targets = dict[str, Value]


def add_losses(
    train: TrainBlock, model: str, forward: Forward, root: Frame, conversions: Conversions
) -> dict[str, TensorType] | None:
    """Makes `loss` and the metrics the outputs of the graph. Returns the types of the targets; None after a mistake."""
    evaluator, graph, outputs = forward.evaluator, forward.evaluator.context.graph, list(forward.outputs.values())
    loss, at = train.values["loss"], train.spans["loss"]
    if not isinstance(loss, Closure):
        message, expected = "this loss does not declare its targets", "a function with typed parameters"
        evaluator.fail(at, root, message, expected, describe(loss))
        return None
    parameters = loss.declaration.groups[-1]
    scope = output_shapes(loss, parameters, model, forward, at, root)
    targets = declare_targets(parameters[len(outputs) :], forward, scope, conversions) if scope else None
    if targets is None:
        return None
    named = [Given(value, at, p.name.id) for p, value in zip(parameters, outputs, strict=False)]
    named += [Given(value, at, name) for name, value in targets.items()]
    results = {"loss": scalar(evaluator, loss, named, at, root)}
    for name, metric, span in zip(train.metric_names, train.values["metrics"], train.metric_spans, strict=True):
        if name in evaluator.variables.by_name:
            message, found = f"the metric {name} cannot have this name", "the name of a variable"
            evaluator.fail(span, root, message, "another name", found)
        given = [Given(value, span) for value in (*outputs, *targets.values())]
        results[name] = scalar(evaluator, metric, given[: count_parameters(metric)], span, root)
    found = {name: value for name, value in results.items() if value is not None}
    graph.outputs.clear()
    graph.outputs |= found
    return {name: value.type for name, value in targets.items()} if len(found) == len(results) else None


def output_shapes(
    loss: Closure, parameters: Sequence[Parameter], model: str, forward: Forward, at: Span, root: Frame
) -> Frame | None:
    """A frame of the loss in which the shape variables of its first parameters have the sizes of the outputs."""
    evaluator, outputs = forward.evaluator, list(forward.outputs.values())
    if loss.declaration.damaged:
        return None
    if len(parameters) < len(outputs):
        message = f"{loss.name} does not take all outputs of {model}"
        found = counted(len(parameters), "parameter")
        evaluator.fail(at, root, message, f"a parameter for each of {counted(len(outputs), 'output')}", found)
        return None
    complete = calls.with_hyperparameters(evaluator, loss, [], at, root)
    if isinstance(complete, Poison):
        return None
    scope = Frame(loss.namespace, loss.name, "fn", dict(complete.hyperparameters or {}), span=at, caller=root)
    for parameter, output in zip(parameters, outputs, strict=False):
        computed = match(parameter.type, output.type, scope.variables) if parameter.type else []
        if computed is None or not agree(computed, lambda dim: evaluator.evaluate(dim, scope)):
            assert parameter.type is not None
            message = f"{loss.name} cannot take the output of {model} as {parameter.name.id}"
            expected = calls.expected_type(parameter.type, scope.variables)
            evaluator.fail(at, root, message, expected, str(output.type), [output])
            return None
    return scope


def declare_targets(
    parameters: Sequence[Parameter], forward: Forward, scope: Frame, conversions: Conversions
) -> Targets | None:
    """Parameters of a loss without a default are targets, or inputs of the model with the same name and type."""
    targets: Targets = {}
    needed = [parameter for parameter in parameters if parameter.default is None]
    for parameter in needed:
        name = parameter.name.id
        type = input_type(forward.evaluator, parameter, scope)
        value = forward.inputs.get(name)
        if type and (value is None or value.type != type):
            value = declare_input(forward.evaluator, parameter.name, type, "target", conversions, scope)
        if type and value:
            targets[name] = value
    return targets if len(targets) == len(needed) else None


def count_parameters(metric: Closure | Builtin) -> int | None:
    """The number of outputs and targets that a metric takes (it may leave out targets from the end); None for all."""
    return len(metric.declaration.groups[-1]) if isinstance(metric, Closure) else None


def scalar(
    evaluator: Evaluator, function: Closure | Builtin, given: list[Given], span: Span, root: Frame
) -> Value | None:
    """The scalar that a loss or metric returns; None after reporting a mistake."""
    value = calls.apply_last(evaluator, function, given, span, root)
    if isinstance(value, Poison):
        return None
    if not is_tensor(value) or value.type != TensorType("f32"):
        message, expected = f"{function.name} does not return one number", "a scalar f32[], such as a mean"
        evaluator.fail(span, root, message, expected, describe_type(value), [value])
        return None
    return value
