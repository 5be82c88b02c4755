"""The training step: the forward graph with its loss, and then gradients, the optimizer's update and the counter."""

from __future__ import annotations

from compiler.diagnostics import Diagnostics, Span
from compiler.elaborate.model import ElaboratedModel, update_parameter
from compiler.elaborate.values import Poison
from compiler.gradient.autodiff import NotDifferentiable, gradients
from compiler.ir.builder import literal
from compiler.ir.graph import Module, Origin


def differentiate(model: ElaboratedModel, diagnostics: Diagnostics) -> Module:
    """The module with a complete `train_step`; a model without a train block is returned as it is.

    Outputs of the step: the loss, the metrics, and the new value of every variable that changes.
    """
    if model.trainer is None:
        return model.module
    context = model.trainer.context
    graph, builder = context.graph, context.builder
    loss = graph.outputs["loss"]
    parameters = graph.of_kind("param")
    try:
        found = gradients(builder, {loss: literal(1, "f32")}, parameters)
    except NotDifferentiable as error:
        origin = error.node.origin or Origin("", 1, 1)
        span = Span(origin.file, origin.line, origin.column, origin.line, origin.column + 1)
        diagnostics.error(span, str(error), expected="differentiable operations between the parameters and the loss")
        return model.module
    if parameters and all(gradient is None for gradient in found):
        message, expected = "the loss does not depend on the parameters", "a derivative with respect to a param"
        assert model.train
        diagnostics.error(model.train.spans["loss"], message, expected=expected, found="zero everywhere")
        return model.module
    context.own.update(value for node in graph.nodes for value in node.results)
    step = context.counter("step")
    for parameter, gradient in zip(parameters, found, strict=True):
        if gradient is not None:
            updated = update_parameter(model, parameter, gradient, step)
            if not isinstance(updated, Poison):
                graph.outputs[parameter.name] = updated
    graph.outputs |= model.trainer.updates
    graph.outputs["step"] = builder.add(step, 1)
    return model.module
