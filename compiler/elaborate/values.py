"""What an expression can be while a program is elaborated: a number, a string, a list, a function, or a tensor."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from compiler.ir.graph import Value
from compiler.ir.types import Batch, TensorType
from compiler.language.syntax import Function

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiler.diagnostics import Span
    from compiler.elaborate.namespaces import Namespace


class Poison:
    """The value of an expression that has been reported as wrong; whatever touches it stays silent."""

    def __repr__(self) -> str:
        return "poison"


POISON = Poison()


@dataclass(frozen=True, eq=False)
class Closure:
    """A declaration, with its hyperparameters once they are known."""

    declaration: Function
    namespace: Namespace
    hyperparameters: dict[str, Any] | None = None  # None: the first of two groups is still to be given
    tensors: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.declaration.name.id

    @property
    def kind(self) -> str:
        return self.declaration.kind


@dataclass(frozen=True, eq=False)
class Builtin:
    """A function that the compiler implements: called with the evaluator and the bound arguments."""

    name: str
    function: Callable[..., Any]


@dataclass(eq=False)
class Call:
    """One application of a layer or function, kept for `summary`: what was called, what came out, which variables."""

    name: str
    path: str
    kind: str
    from_library: bool
    piped: bool
    span: Span
    output: Any = None
    variables: list[str] = field(default_factory=list)
    children: list[Call] = field(default_factory=list)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_function(value: Any) -> TypeGuard[Closure | Builtin]:
    return isinstance(value, Closure | Builtin)


def is_tensor(value: Any) -> TypeGuard[Value]:
    return isinstance(value, Value)


def poisoned(values: Any) -> bool:
    """Whether a value, or any item of a list, is poison."""
    if isinstance(values, list | tuple):
        return any(map(poisoned, values))
    return isinstance(values, Poison)


def describe(value: Any) -> str:
    """A value in the words of an error message."""
    if isinstance(value, Value):
        return f"a tensor {value.type}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_number(value):
        return f"the number {value}"
    if isinstance(value, Batch):
        return f"the run-time batch {value}"
    if isinstance(value, str):
        return f'the string "{value}"'
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if is_function(value):
        return f"{value.kind if isinstance(value, Closure) else 'the function'} {value.name}"
    return "none" if value is None else str(value)


def describe_type(value: Any) -> str:
    """A type or the description of what has none."""
    return (
        str(value.type)
        if isinstance(value, Value)
        else str(value)
        if isinstance(value, TensorType)
        else describe(value)
    )


def snake_case(name: str) -> str:
    """`Conv2D` -> `conv2d`, `BatchNorm` -> `batch_norm`, `LSTM` -> `lstm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", name).lower()
