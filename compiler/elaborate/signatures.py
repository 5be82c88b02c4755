"""Binds arguments to parameters, and the sizes of tensors to the shape variables of a signature."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate.values import poisoned
from compiler.ir.types import Batch, Dim, TensorType
from compiler.language.syntax import EllipsisDim, Expression, Name, Parameter, TypeExpression
from runtime.errors import did_you_mean

ELLIPSIS = "..."  # among the shape variables: the dimensions that an ellipsis stands for


@dataclass(slots=True)
class Given:
    """One argument of a call: its value, its position in the source, and its keyword if it has one."""

    value: Any
    span: Span
    name: str | None = None


@dataclass(frozen=True)
class Mismatch:
    """Why a call does not match a signature: the parts of the diagnostic."""

    message: str
    span: Span
    expected: str | None = None
    found: str | None = None


def bind(
    callee: str, names: Sequence[str], optional: Collection[str], given: Sequence[Given], span: Span, noun: str
) -> dict[str, Given] | Mismatch:
    """The argument of each parameter that has one; `noun` is the word for them: tensor, hyperparameter, argument."""

    def mismatch(message: str, span: Span, found: str | None = None) -> Mismatch:
        takes = counted(len(names), noun) + (f" ({', '.join(names)})" if names else "")
        return Mismatch(message, span, takes, found or counted(len(given), noun))

    positional = [argument for argument in given if argument.name is None]
    if len(positional) > len(names):
        return mismatch(f"too many {noun}s for {callee}", positional[len(names)].span)
    bound = dict(zip(names, positional, strict=False))
    for argument in given:
        if argument.name is None:
            continue
        if argument.name not in names:
            hint = did_you_mean(argument.name, names)
            message = f"{callee} has no {noun} named {argument.name}" + (f"; {hint}" if hint else "")
            return mismatch(message, argument.span, argument.name)
        if argument.name in bound:
            return mismatch(f"{callee} is given {argument.name} twice", argument.span)
        bound[argument.name] = argument
    missing = [name for name in names if name not in bound and name not in optional]
    if missing:
        message = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing in the call to {callee}"
        found = "none" if noun == "hyperparameter" else f"none (to pass {callee} as a value, omit the parentheses)"
        return mismatch(message, span, None if given else found)
    return bound


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def names_and_optional(parameters: Sequence[Parameter]) -> tuple[list[str], set[str]]:
    """The names of a group of parameters, and of those that need no argument."""
    return [p.name.id for p in parameters], {p.name.id for p in parameters if p.default is not None}


Computed = list[tuple[Expression, Dim]]  # dimensions that are expressions, and the sizes they must have


def match(pattern: TypeExpression, type: TensorType, dims: dict[str, Any]) -> Computed | None:
    """Matches a tensor's type with that of a signature; None if they differ.

    Names that are not bound yet are bound in `dims`, and so are the dimensions of an ellipsis. The dimensions that must
    be computed are returned, to be checked with `agree` when the names of the whole signature are known.
    """
    if pattern.dtype != type.dtype:
        return None
    dots = [i for i, dim in enumerate(pattern.dims) if isinstance(dim, EllipsisDim)]
    fixed = len(pattern.dims) - len(dots)
    if len(dots) > 1 or type.rank < fixed or (not dots and type.rank != fixed):
        return None
    before = dots[0] if dots else fixed
    after = type.rank - (fixed - before)
    if dots and dims.setdefault(ELLIPSIS, list(type.shape[before:after])) != list(type.shape[before:after]):
        return None
    pairs = [*zip(pattern.dims[:before], type.shape, strict=False)]
    pairs += zip(pattern.dims[before + 1 :], type.shape[after:], strict=True)
    if any(isinstance(dim, Name) and dims.setdefault(dim.id, size) != size for dim, size in pairs):
        return None
    return [(dim, size) for dim, size in pairs if not isinstance(dim, Name | EllipsisDim)]


def agree(computed: Computed, evaluate: Callable[[Expression], Any]) -> bool:
    """Whether dimensions that are expressions have their sizes; one that cannot be computed is reported elsewhere."""
    values = [(evaluate(dim), size) for dim, size in computed]
    return all(poisoned(value) or value == size for value, size in values)


def as_shape(values: Any) -> tuple[Dim, ...] | None:
    """A list of dimensions as a shape, or None if it is not one."""
    if not isinstance(values, list | tuple):
        return None
    good = all(isinstance(v, Batch) or (isinstance(v, int) and not isinstance(v, bool) and v >= 0) for v in values)
    return tuple(values) if good else None
