"""Compile-time values: numbers, strings, lists, functions and tensors, and the namespaces in which names find them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeGuard

from compiler.diagnostics import Span
from compiler.ir.graph import Value
from compiler.ir.types import Batch
from compiler.language.syntax import Function

LONGEST_EXCERPT = 60  # characters of a string or a list shown in a message


class Poison:
    """The value of an expression with a reported mistake; whatever uses it reports nothing more."""

    def __repr__(self) -> str:
        return "poison"


POISON = Poison()


@dataclass(frozen=True, eq=False)
class Closure:
    """A declaration, with its hyperparameters once they are known."""

    declaration: Function
    namespace: Namespace
    hyperparameters: dict[str, Any] | None = None  # None: the first of two groups is not given yet

    @property
    def name(self) -> str:
        return self.declaration.name.id

    @property
    def kind(self) -> str:
        return self.declaration.kind

    @property
    def waits_for_hyperparameters(self) -> bool:
        return len(self.declaration.groups) == 2 and self.hyperparameters is None


@dataclass(frozen=True, eq=False)
class Builtin:
    """A function that the compiler implements: called with a Site and the bound arguments."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[str, ...]
    optional: tuple[str, ...] = ()  # those of the parameters that have a default
    variadic: bool = False  # takes any number of positional values; its parameters are given by name


@dataclass(eq=False)
class Namespace:
    """The declarations of a program or of the library; other names are looked up in the parent."""

    declarations: Mapping[str, Function] = field(default_factory=dict)
    builtins: dict[str, Builtin] = field(default_factory=dict)
    parent: Namespace | None = None
    is_library: bool = False
    unknown: set[Span] = field(default_factory=set)  # uses of names that have been reported as unknown
    steps: int = 0  # compile-time steps that the program has taken so far

    def find(self, name: str) -> Closure | Builtin | None:
        if name in self.declarations:
            return Closure(self.declarations[name], self)
        if name in self.builtins:
            return self.builtins[name]
        return self.parent.find(name) if self.parent else None

    def names(self) -> list[str]:
        inherited = self.parent.names() if self.parent else []
        return [*self.declarations, *self.builtins, *inherited]


@dataclass(eq=False)
class CallRecord:
    """One call of a layer or function, kept for `summary`: what was called, its result, and its variables."""

    name: str
    path: str
    kind: str
    from_library: bool
    piped: bool
    span: Span
    output: Any = None
    variables: list[str] = field(default_factory=list)
    children: list[CallRecord] = field(default_factory=list)


NUMBERS, FUNCTIONS = (int, float), (Closure, Builtin)  # checked often: building a union each time would take longer


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, NUMBERS) and not isinstance(value, bool)


def is_function(value: Any) -> TypeGuard[Closure | Builtin]:
    return isinstance(value, FUNCTIONS)


def is_tensor(value: Any) -> TypeGuard[Value]:
    return isinstance(value, Value)


def tensors_in(value: Any) -> list[Value]:
    """The tensors of a result: itself, or those of a list."""
    if isinstance(value, list):
        return [item for item in value if is_tensor(item)]
    return [value] if is_tensor(value) else []


def poisoned(*values: Any) -> bool:
    """Whether any of the values is poison. Lists are not searched: one with a poisoned item is poison itself."""
    return POISON in values


def describe(value: Any) -> str:
    """A value as error messages describe it."""
    if isinstance(value, Value):
        return f"a tensor {value.type}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_number(value):
        return f"the number {value}"
    if isinstance(value, Batch):
        return f"the run-time batch {value}"
    if isinstance(value, str):
        return f'the string "{excerpt(value)}"'
    if isinstance(value, list):
        return describe_list(value)
    if is_function(value):
        return f"the {value.kind if isinstance(value, Closure) and value.kind != 'fn' else 'function'} {value.name}"
    return "none" if value is None else "nothing"


def describe_list(items: list[Any]) -> str:
    """A short list of plain values in full, else what kind of list it is."""
    if items and all(map(is_tensor, items)):
        tensors = "a list of a tensor" if len(items) == 1 else f"{len(items)} tensors"
        return f"{tensors}: {excerpt(', '.join(str(item.type) for item in items))}"
    if len(items) <= LONGEST_EXCERPT and not any(isinstance(item, list) for item in items):
        return f"the list {excerpt(show_items(items))}"
    return f"a list of {len(items)}"


def show_items(items: list[Any]) -> str:
    plain = [str(item) if is_number(item) or isinstance(item, Batch) else describe(item) for item in items]
    return "[" + ", ".join(plain) + "]"


def excerpt(text: str) -> str:
    return text if len(text) <= LONGEST_EXCERPT else text[:LONGEST_EXCERPT] + "…"


def describe_type(value: Any) -> str:
    """A tensor's type, or the description of what is not a tensor."""
    return str(value.type) if is_tensor(value) else describe(value)


def named_without_quotes(expected: str, value: Any) -> str:
    """`an optimizer, written without quotes: SGD` where a string or a list of strings was given instead of names."""
    names = value if isinstance(value, list) else [value]
    if names and all(isinstance(name, str) and name.isidentifier() for name in names):
        return f"{expected}, written without quotes: {', '.join(names)}"
    return expected


@cache
def snake_case(name: str) -> str:
    """`Conv2D` -> `conv2d`, `BatchNorm` -> `batch_norm`, `LSTM` -> `lstm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", name).lower()
