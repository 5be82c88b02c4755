"""Builtins, the functions that the compiler implements: how they are registered and called.

The rest of the library is written in the language (`compiler/std`). A builtin's Python signature is its signature in
the language; it raises TypeRuleError with what it expected and found. The builtins are in tensor_builtins.py and
number_builtins.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import CO_VARARGS
from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate.cautions import note_activation, note_pairs
from compiler.elaborate.evaluator import Evaluator, Site
from compiler.elaborate.frames import Frame
from compiler.elaborate.signatures import Given, Mismatch, bind
from compiler.elaborate.values import Builtin, CallRecord, tensors_in
from compiler.ir.types import TypeRuleError

BUILTINS: dict[str, Builtin] = {}


def register(name: str, function: Callable[..., Any]) -> None:
    """Adds a builtin: a function of a Site and of the arguments of the call."""
    code = function.__code__
    variadic = bool(code.co_flags & CO_VARARGS)
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    defaults = len(names) if variadic else len(function.__defaults__ or ())
    BUILTINS[name] = Builtin(name, function, names, names[len(names) - defaults :], variadic)


def builtin(function: Callable[..., Any]) -> Callable[..., Any]:
    """Registers a function under its Python name, without a trailing underscore."""
    register(function.__name__.rstrip("_"), function)
    return function


def call_builtin(
    evaluator: Evaluator, called: Builtin, given: Sequence[Given], span: Span, frame: Frame, piped: bool
) -> Any:
    """Binds the arguments to the Python signature and calls the function; mistakes are reported at the call."""
    rest, named = [], given
    if called.variadic:
        rest = [argument.value for argument in given if not argument.name]
        named = [argument for argument in given if argument.name]
    bound = bind(called.name, called.parameters, called.optional, named, span, "argument")
    if isinstance(bound, Mismatch):
        return evaluator.fail(bound.span, frame, bound.message, bound.expected, bound.found)
    values = {name: argument.value for name, argument in bound.items()}
    try:
        result = called.function(Site(evaluator, span, frame), *rest, **values)
    except TypeRuleError as refusal:
        if called.name != "error":
            refusal.message = f"{called.name}: {refusal.message}"
        return evaluator.refuse(refusal, span, frame, [argument.value for argument in given])
    evaluator.weigh(result, span, frame)
    note_pairs(evaluator, [argument.value for argument in given], result, span, frame)
    note_activation(evaluator, called.name, result, span, frame)
    fresh = [tensor for tensor in tensors_in(result) if tensor not in evaluator.history]  # scan has recorded its cell
    if fresh:
        source = next((argument.value for argument in given if tensors_in(argument.value)), None)
        evaluator.remember(called.name, fresh, source, span, frame)
    if piped and frame.call is not None and not frame.namespace.is_library:
        frame.call.children.append(CallRecord(called.name, frame.path, "fn", True, True, span, result))
    return result
