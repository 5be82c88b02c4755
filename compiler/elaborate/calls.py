"""Calls: hyperparameters and tensors are bound, shapes are matched, and the body of the declaration runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate.builtins import call_builtin
from compiler.elaborate.cautions import note_activation, warn_about_activated, warn_about_second_use
from compiler.elaborate.evaluator import Evaluator, Site
from compiler.elaborate.frames import CONTINUE, Frame
from compiler.elaborate.signatures import ELLIPSIS, Computed, Given, Mismatch, agree, bind, match, names_and_optional
from compiler.elaborate.values import (
    POISON,
    Builtin,
    CallRecord,
    Closure,
    Poison,
    describe,
    describe_type,
    is_number,
    is_tensor,
    named_without_quotes,
    poisoned,
    show_items,
    snake_case,
)
from compiler.ir.builder import literal
from compiler.ir.types import Batch
from compiler.language import syntax
from compiler.language.formatter import format_type

DEEPEST_CALL = 60
STEPS_OF_A_CALL = 8
RUNS_IN = {
    "cell": "a cell runs in scan(cell, x)",
    "metric": "a metric runs in a train block, or in another metric",
    "optimizer": "an optimizer runs as optimizer = … in a train block",
    "model": "a model runs in a train block",
}


def call(evaluator: Evaluator, function: Any, given: Sequence[Given], span: Span, frame: Frame) -> Any:
    """`f(…)`: binds hyperparameters if the declaration still waits for them, unless the arguments are tensors."""
    if isinstance(function, Closure) and function.waits_for_hyperparameters and not takes_tensors(function, given):
        return with_hyperparameters(evaluator, function, given, span, frame)
    return apply_last(evaluator, function, given, span, frame)


def takes_tensors(closure: Closure, given: Sequence[Given]) -> bool:
    """Whether the arguments are tensors: `elu(image)` and `elu(x=image)` are short for `elu()(image)`."""
    if not given or given[0].name is None:
        return bool(given) and is_tensor(given[0].value)
    hyperparameters, tensors = ([p.name.id for p in group] for group in closure.declaration.groups)
    return given[0].name in tensors and given[0].name not in hyperparameters


def with_hyperparameters(
    evaluator: Evaluator, closure: Closure, given: Sequence[Given], span: Span, frame: Frame
) -> Closure | Poison:
    """The closure with its first group bound, if it still waits for that; what is not given takes its default."""
    if not closure.waits_for_hyperparameters:
        return closure
    if too_deep(evaluator, closure, span, frame):
        return POISON
    group = closure.declaration.groups[0]
    bound = bind(closure.name, *names_and_optional(group), given, span, "hyperparameter")
    if isinstance(bound, Mismatch):
        return refuse_call(evaluator, closure, bound, frame)
    values = {name: argument.value for name, argument in bound.items()}
    defaults = Frame(closure.namespace, closure.name, "fn", values, span=span, caller=frame, depth=frame.depth + 1)
    for parameter in group:
        if parameter.name.id not in values and parameter.default is not None:
            values[parameter.name.id] = evaluator.evaluate(parameter.default, defaults)
    return POISON if poisoned(*values.values()) else Closure(closure.declaration, closure.namespace, values)


def refuse_call(evaluator: Evaluator, closure: Closure, mismatch: Mismatch, frame: Frame) -> Poison:
    """Reports a call that does not match the signature, unless a syntax error may have damaged the signature."""
    if closure.declaration.damaged:
        return POISON
    return evaluator.fail(mismatch.span, frame, mismatch.message, mismatch.expected, mismatch.found)


def too_deep(evaluator: Evaluator, closure: Closure, span: Span, frame: Frame) -> bool:
    if frame.depth >= DEEPEST_CALL:
        message = f"{closure.name} calls itself too deeply"
        evaluator.fail(span, frame, message, f"at most {DEEPEST_CALL} nested calls")
    return frame.depth >= DEEPEST_CALL


def apply_last(
    evaluator: Evaluator, function: Any, given: Sequence[Given], span: Span, frame: Frame, piped: bool = False
) -> Any:
    """Binds the last group and runs the body; hyperparameters that are not given take their defaults."""
    if poisoned(function, *(argument.value for argument in given)):
        return POISON
    if isinstance(function, Builtin):
        return call_builtin(evaluator, function, given, span, frame, piped)
    if not isinstance(function, Closure):
        expected = named_without_quotes("a function or a layer", function)
        return evaluator.fail(span, frame, "this cannot be called", expected, describe(function))
    if function.kind in RUNS_IN and not (function.kind == "metric" and frame.is_inside("metric")):
        return evaluator.fail(
            span, frame, RUNS_IN[function.kind], "a layer or a function", f"the {function.kind} {function.name}"
        )
    return run_closure(evaluator, function, given, span, frame, piped)


def run_closure(
    evaluator: Evaluator, function: Closure, given: Sequence[Given], span: Span, frame: Frame, piped: bool = False
) -> Any:
    """What the body of a declaration returns for some arguments."""
    inner = enter(evaluator, function, given, span, frame, piped)
    if isinstance(inner, Poison):
        return POISON
    warn_about_activated(evaluator, inner, given, span, frame)
    result = evaluator.run(function.declaration.body, inner)
    if result is CONTINUE:
        if function.declaration.damaged:
            return POISON
        name = function.declaration.name
        return evaluator.fail(name.span, inner, f"{function.name} returns nothing", "a return", "the end of the body")
    leave(evaluator, inner, result, given[0].value if given else None, span, frame)
    if inner.namespace.is_library:
        note_activation(evaluator, inner.name, result, span, frame)
    warn_about_second_use(evaluator, function, inner, span, frame)
    return result


def enter(
    evaluator: Evaluator, closure: Closure, given: Sequence[Given], span: Span, frame: Frame, piped: bool = False
) -> Frame | Poison:
    """A frame with hyperparameters, tensors and shape variables bound."""
    if too_deep(evaluator, closure, span, frame):
        return POISON
    evaluator.tick(span, frame, STEPS_OF_A_CALL)
    complete = with_hyperparameters(evaluator, closure, [], span, frame)
    if isinstance(complete, Poison):
        return POISON
    closure = complete
    group = closure.declaration.groups[-1]
    noun = "tensor" if closure.kind != "fn" or any(parameter.type for parameter in group) else "argument"
    bound = bind(closure.name, *names_and_optional(group), given, span, noun)
    if isinstance(bound, Mismatch):
        return refuse_call(evaluator, closure, bound, frame)
    inner = new_frame(closure, span, frame)
    if closure.kind in ("layer", "cell") and not place(evaluator, closure, inner, span, frame):
        return POISON
    inner.call = CallRecord(closure.name, inner.path, closure.kind, closure.namespace.is_library, piped, span)
    return inner if bind_arguments(evaluator, closure, group, bound, inner) else POISON


def new_frame(closure: Closure, span: Span, frame: Frame) -> Frame:
    return Frame(
        closure.namespace,
        closure.name,
        closure.kind,
        dict(closure.hyperparameters or {}),
        frame.path,
        frame.counters,
        parameters=frozenset(p.name.id for group in closure.declaration.groups for p in group),
        span=span,
        caller=frame,
        damaged=closure.declaration.damaged,
        depth=frame.depth + 1,
    )


def place(evaluator: Evaluator, closure: Closure, inner: Frame, span: Span, frame: Frame) -> bool:
    """Gives a layer or cell its path; False after reporting that none can run here."""
    for where, here in (
        ("an optimizer", frame.is_inside("optimizer")),
        ("an initial value", evaluator.context.root is evaluator.variables.init),
    ):
        if here:
            message = f"a {closure.kind} cannot run inside {where}"
            evaluator.fail(span, frame, message, "functions", f"the {closure.kind} {closure.name}")
            return False
    kind = snake_case(closure.name)
    frame.counters[kind] = number = frame.counters.get(kind, 0) + 1
    inner.path = f"{frame.path}.{kind}_{number}".lstrip(".")
    inner.counters = {}
    return True


def bind_arguments(
    evaluator: Evaluator, closure: Closure, group: Sequence[syntax.Parameter], bound: dict[str, Given], inner: Frame
) -> bool:
    """Binds the arguments in the frame; False after reporting those that do not match the signature."""
    checks: list[tuple[syntax.Parameter, Given, Computed]] = []
    for parameter in group:
        given = bound.get(parameter.name.id)
        if given is None:
            assert parameter.default is not None
            inner.variables[parameter.name.id] = evaluator.evaluate(parameter.default, inner)
            continue
        value = given.value
        if parameter.type is not None:
            value = tensor_argument(evaluator, closure, parameter, given, inner)
            if isinstance(value, Poison):
                return False
            computed = match(parameter.type, value.type, inner.variables)
            if computed is None:
                return refuse_argument(evaluator, closure, parameter, given, inner)
            checks.append((parameter, given, computed))
        inner.variables[parameter.name.id] = value
    for parameter, given, computed in checks:  # once all names of the signature are known
        if not agree(computed, lambda dim: evaluator.evaluate(dim, inner)):
            return refuse_argument(evaluator, closure, parameter, given, inner)
    return not poisoned(*(inner.variables[parameter.name.id] for parameter in group))


def tensor_argument(
    evaluator: Evaluator, closure: Closure, parameter: syntax.Parameter, given: Given, inner: Frame
) -> Any:
    """The argument of a typed parameter as a tensor: numbers and the batch become scalars."""
    assert inner.caller is not None and parameter.type is not None
    value, dtype = given.value, parameter.type.dtype
    if isinstance(value, Batch):
        return Site(evaluator, given.span, inner.caller).scalar(value)
    if is_number(value):
        return evaluator.guarded(given.span, inner.caller, lambda _: literal(value, dtype))
    if not is_tensor(value):
        refuse_argument(evaluator, closure, parameter, given, inner)
        return POISON
    return value


def refuse_argument(
    evaluator: Evaluator, closure: Closure, parameter: syntax.Parameter, given: Given, inner: Frame
) -> bool:
    """Reports an argument whose type does not match the signature."""
    assert inner.caller is not None and parameter.type is not None
    name = parameter.name.id
    message = f"{closure.name} cannot take this as {name}"
    expected = expected_type(parameter.type, inner.variables)
    evaluator.fail(given.span, inner.caller, message, expected, describe_type(given.value), [given.value])
    return False


def expected_type(pattern: syntax.TypeExpression, dims: dict[str, Any]) -> str:
    """`f32[B, n] with n = 4`: a type in a signature, and the shape variables in it that are known."""
    names = dict.fromkeys(name for dim in pattern.dims for name in names_in(dim))
    known = [(name, dims[name]) for name in names if name in dims and str(dims[name]) != name]
    shown = [f"{name} = {show_items([value])[1:-1]}" for name, value in known if not isinstance(value, list)]
    shown += [f"{name} = {show_items(value)}" for name, value in known if name == ELLIPSIS]
    return format_type(pattern) + (f" with {', '.join(shown)}" if shown else "")


def names_in(node: syntax.SyntaxNode) -> Iterator[str]:
    if isinstance(node, syntax.EllipsisDim):
        yield ELLIPSIS
    elif isinstance(node, syntax.Name):
        yield node.id
    for child in syntax.children(node):
        yield from names_in(child)


def leave(evaluator: Evaluator, inner: Frame, result: Any, source: Any, span: Span, frame: Frame) -> None:
    """Records where tensors come from (for error messages) and what was called (for `summary`)."""
    assert inner.call is not None
    inner.call.output = result
    if frame.call is not None:
        frame.call.children.append(inner.call)
    evaluator.remember(inner.name, result, source, span, frame)
