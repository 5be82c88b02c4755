"""Arguments to parameters, and the shapes of tensors to the shape variables of a signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.diagnostics import Span, did_you_mean
from compiler.ir.types import Batch, Dim, TensorType
from compiler.language.syntax import EllipsisDim, Expression, Name, Parameter, TypeExpression


@dataclass(frozen=True)
class Given:
    """One argument of a call: its value, where it stands, and its keyword if it has one."""

    value: Any
    span: Span
    name: str | None = None


@dataclass(frozen=True)
class Problem:
    """Why a call does not fit: what the diagnostic will say."""

    message: str
    span: Span
    expected: str | None = None
    found: str | None = None


def bind(
    callee: str, parameters: Sequence[Parameter], given: Sequence[Given], span: Span, noun: str
) -> dict[str, Given] | Problem:
    """The argument of each parameter that has one; `noun` says what the group takes (tensor, hyperparameter, argument)."""
    names = [parameter.name.id for parameter in parameters]
    takes = f"{len(names)} {noun}{'' if len(names) == 1 else 's'}" + (f" ({', '.join(names)})" if names else "")
    positional = [argument for argument in given if argument.name is None]
    if len(positional) > len(names):
        return Problem(f"{callee} takes {takes}", positional[len(names)].span, takes, str(len(given)))
    bound = dict(zip(names, positional, strict=False))
    for argument in given:
        if argument.name is None:
            continue
        if argument.name not in names:
            message = f"{callee} has no {noun} named {argument.name}"
            hint = did_you_mean(argument.name, names)
            return Problem(message + (f"; {hint}" if hint else ""), argument.span, takes, argument.name)
        if argument.name in bound:
            return Problem(f"{callee} is given {argument.name} twice", argument.span)
        bound[argument.name] = argument
    missing = [p.name.id for p in parameters if p.name.id not in bound and p.default is None]
    if missing:
        return Problem(f"{callee} takes {takes}; {', '.join(missing)} is missing", span, takes, str(len(given)))
    return bound


def unify(
    pattern: TypeExpression, type: TensorType, dims: dict[str, Any], evaluate: Callable[[Expression], Any]
) -> bool:
    """Matches a tensor's type with a signature's; False if they differ.

    Names not bound yet are bound in `dims`, and under "..." the dimensions that an ellipsis stands for.
    """
    if pattern.dtype != type.dtype:
        return False
    dots = [i for i, dim in enumerate(pattern.dims) if isinstance(dim, EllipsisDim)]
    fixed = len(pattern.dims) - len(dots)
    if len(dots) > 1 or type.rank < fixed or (not dots and type.rank != fixed):
        return False
    before = dots[0] if dots else fixed
    if dots:
        dims.setdefault("...", list(type.shape[before : type.rank - (fixed - before)]))
    pairs = [*zip(pattern.dims[:before], type.shape, strict=False)]
    pairs += zip(pattern.dims[before + 1 :], type.shape[type.rank - (fixed - before) :], strict=True)
    for dim, size in pairs:
        if isinstance(dim, Name) and dim.id not in dims:
            dims[dim.id] = size
        elif evaluate(dim) != size:
            return False
    return True


def as_shape(values: Any) -> tuple[Dim, ...] | None:
    """A list of dimensions as a shape, or None if it is not one."""
    if not isinstance(values, list | tuple):
        return None
    good = all(isinstance(v, Batch) or (isinstance(v, int) and not isinstance(v, bool) and v >= 0) for v in values)
    return tuple(values) if good else None
