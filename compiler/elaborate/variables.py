"""Assignments, and the declarations of tensors that outlive a step: params, states, slots and carries."""

from __future__ import annotations

from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate import calls
from compiler.elaborate.context import Variable
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.frames import Carry, Frame
from compiler.elaborate.signatures import Given, as_shape
from compiler.elaborate.values import (
    POISON,
    Poison,
    describe,
    describe_type,
    is_function,
    is_number,
    is_tensor,
    poisoned,
    show_items,
)
from compiler.ir.builder import literal
from compiler.ir.graph import Value
from compiler.ir.types import FLOATS, TensorType, TypeRuleError
from compiler.language import syntax
from compiler.language.formatter import format_type

DECLARED_IN = {"param": ("layer", "cell", "model"), "state": ("layer", "model", "optimizer"), "carry": ("cell",)}
RESERVED = ("loss", "seed", "step")  # names of the training step, next to a model's inputs and variables


def assign(evaluator: Evaluator, target: syntax.Name, value: Any, frame: Frame) -> None:
    """`name = value`; assigning to a state sets its value for the next step."""
    kept = frame.persistent.get(target.id)
    if kept is None:
        frame.variables[target.id] = value
        if target.id in frame.carries:
            frame.carries[target.id].span = target.span
    elif kept.kind == "param":
        message = f"{target.id} is a param: only the optimizer changes it"
        evaluator.fail(target.span, frame, message, "a state, or another name", target.id)
    elif is_number(value) or (is_tensor(value) and value.type == kept.type):
        tensor = filled(evaluator, value, kept.type, target.span, frame)
        if evaluator.training and is_tensor(tensor):
            evaluator.updates[kept.name] = frame.variables[target.id] = tensor
    elif not poisoned(value):
        message = f"the state {target.id} cannot change its type"
        evaluator.fail(target.span, frame, message, str(kept.type), describe_type(value), [value])


def declare(evaluator: Evaluator, node: syntax.Declare, frame: Frame) -> None:
    """`param`, `state` or `carry`; a mistake leaves the name poisoned."""
    name, kind = node.name.id, node.kind
    if frame.kind not in DECLARED_IN[kind]:
        expected = f"a {kind} in a " + " or ".join(DECLARED_IN[kind])
        evaluator.fail(node.span, frame, f"a {kind} cannot be declared here", expected, f"a {kind} in {a_kind(frame)}")
    elif kind == "state" and evaluator.context.parent:
        evaluator.fail(node.span, frame, "a layer with a state cannot run inside a cell", "layers without state", name)
    elif name in frame.persistent or name in frame.carries or name in frame.parameters:
        evaluator.fail(node.name.span, frame, f"{name} is declared twice", "one declaration of each name", name)
        return
    elif not frame.path and name in RESERVED:
        evaluator.fail(node.name.span, frame, f"{name} is a reserved name in training", "another name", name)
    else:
        type = declared_type(evaluator, node, frame)
        if not isinstance(type, Poison):
            build = declare_carry if kind == "carry" else declare_variable
            frame.variables[name] = build(evaluator, node, type, frame)
            return
    frame.variables[name] = POISON


def a_kind(frame: Frame) -> str:
    return f"{'an' if frame.kind == 'optimizer' else 'a'} {frame.kind}"


def declared_type(evaluator: Evaluator, node: syntax.Declare, frame: Frame) -> TensorType | Poison | None:
    """The declared type; None if it follows from the value."""
    kind, name = node.kind, node.name.id
    if node.value is None:
        message, expected = f"the {kind} {name} needs an initial value", "a value, such as = zeros"
        return evaluator.fail(node.span, frame, message, expected, "no value")
    if node.type is None:
        if kind == "param":
            expected = f"param {name}: f32[…] = …"
            return evaluator.fail(node.span, frame, f"the param {name} needs a type", expected, "no type")
        return None
    message, expected = f"not a shape for a {kind}", "whole numbers, at least 0, known at compile time"
    found = format_type(node.type)
    dims = []
    for dim in node.type.dims:
        if isinstance(dim, syntax.EllipsisDim):
            return evaluator.fail(node.type.span, frame, message, expected, found)
        dims.append(evaluator.evaluate(dim, frame))
    if poisoned(*dims):
        return POISON
    shape = as_shape(dims)
    if shape is None or (kind != "carry" and not all(isinstance(dim, int) for dim in shape)):
        found += f", which is {node.type.dtype}{show_items(dims)}"
        return evaluator.fail(node.type.span, frame, message, expected, found)
    if kind == "param" and node.type.dtype not in FLOATS:
        message = "a param is trained, so it needs a float dtype"
        return evaluator.fail(node.type.span, frame, message, " or ".join(FLOATS), node.type.dtype)
    dtype = node.type.dtype
    return evaluator.guarded(node.type.span, frame, lambda _: TensorType(dtype, shape))


def declare_variable(evaluator: Evaluator, node: syntax.Declare, type: TensorType | None, frame: Frame) -> Any:
    """The graph input of a variable; its initial value is built when it is declared for the first time."""
    name = f"{frame.path}.{node.name.id}" if frame.path else node.name.id
    kind = "slot" if frame.kind == "optimizer" else node.kind
    where, _ = evaluator.site(node.span, frame)
    variable = evaluator.variables.by_name.get(name)
    if variable is not None and (variable.span != where or variable.type != (type or variable.type)):
        message = f"the declaration of {name} differs between training and prediction"
        expected = f"{variable.type}, as in line {variable.span.line}"
        return evaluator.fail(node.name.span, frame, message, expected, str(type) if type else "another declaration")
    if variable is None:
        initial = initial_value(evaluator, node, type, frame)
        if isinstance(initial, Poison):
            return POISON
        variable = Variable(name, initial.type, kind, where)
        evaluator.variables.by_name[name] = variable
        evaluator.variables.init.graph.outputs[name] = initial
    frame.persistent[node.name.id] = variable
    if frame.call is not None:
        frame.call.variables.append(name)
    return evaluator.context.variable(variable.name, variable.type, variable.kind)


def initial_value(evaluator: Evaluator, node: syntax.Declare, type: TensorType | None, frame: Frame) -> Value | Poison:
    """Builds a variable's initial value in the init graph: a number, a function of the shape, or an expression."""
    assert node.value is not None
    span = node.value.span
    with evaluator.within(evaluator.variables.init):
        value = evaluator.evaluate(node.value, frame)
        if is_function(value) and type is not None:
            value = calls.apply_last(evaluator, value, [Given(list(type.shape), span)], span, frame)
        if isinstance(value, Poison):
            return POISON
        if not is_tensor(value) and not is_number(value):
            message = f"not an initial value for {node.name.id}"
            expected = "a number, a tensor or a function of the shape"
            return evaluator.fail(span, frame, message, expected, describe(value))
        value = filled(evaluator, value, type or TensorType("f32"), span, frame)
        if isinstance(value, Poison):
            return POISON
        try:
            value = evaluator.context.localize(value)
        except TypeRuleError as refusal:
            return evaluator.refuse(refusal, span, frame)
        if type is not None and value.type.shape == type.shape and value.type.is_float and type.is_float:
            value = evaluator.guarded(span, frame, lambda site: site.cast(value, type.dtype))
        if type is not None and value.type != type:
            message = f"the initial value of {node.name.id} has the wrong type"
            return evaluator.fail(span, frame, message, str(type), describe_type(value), [value])
        return value


def filled(evaluator: Evaluator, value: Any, type: TensorType, span: Span, frame: Frame) -> Value | Poison:
    """A number as a tensor of a type; a tensor as it is."""
    if is_tensor(value):
        return value
    return evaluator.guarded(
        span, frame, lambda site: site.emit("broadcast", literal(value, type.dtype), shape=type.shape)
    )


def declare_carry(evaluator: Evaluator, node: syntax.Declare, type: TensorType | None, frame: Frame) -> Any:
    """A carry of the running cell: its initial value belongs to the graph around the scan."""
    body = evaluator.context
    assert body.parent is not None and node.value is not None
    with evaluator.within(body.parent):
        value = evaluator.evaluate(node.value, frame)
        if is_number(value) and type is not None:
            value = filled(evaluator, value, type, node.value.span, frame)
        if is_tensor(value):
            local = evaluator.guarded(node.value.span, frame, lambda site: site.context.localize(value))
            value = POISON if isinstance(local, Poison) else value
    if isinstance(value, Poison):
        return POISON
    if not is_tensor(value) or (type is not None and value.type != type):
        message = f"the initial value of the carry {node.name.id} has the wrong type"
        expected = str(type) if type else "a tensor, or a declared type: carry h: f32[…] = 0"
        return evaluator.fail(node.value.span, frame, message, expected, describe_type(value), [value])
    frame.carries[node.name.id] = Carry(value, node.name.span)
    return body.input(node.name.id, value.type, "carry")
