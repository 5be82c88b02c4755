"""Checks of arguments of builtins: each returns the argument as an op takes it, or raises TypeRuleError."""

from __future__ import annotations

from typing import Any

from compiler.elaborate.evaluator import Site
from compiler.elaborate.signatures import as_shape
from compiler.elaborate.values import describe, is_number, is_tensor
from compiler.ir.builder import literal
from compiler.ir.graph import Value
from compiler.ir.types import DTYPES, Batch, Dim, TypeRuleError


def tensor(site: Site, value: Any, dtype: str = "f32") -> Value:
    """A tensor; numbers and the batch become scalars."""
    if isinstance(value, Batch):
        return site.scalar(value, dtype)
    if is_number(value):
        return literal(value, dtype)
    if not is_tensor(value):
        raise TypeRuleError("not a tensor", "a tensor or a number", describe(value))
    return value


def number(value: Any, what: str) -> int | float:
    if not is_number(value):
        raise TypeRuleError(f"{what} is not a number", "a number", describe(value))
    return value


def whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeRuleError(f"{what} is not a whole number", "a whole number", describe(value))
    return value


def boolean(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise TypeRuleError(f"{what} is not a boolean", "true or false", describe(value))
    return value


def axis_of(value: Any, rank: int) -> int:
    """The axis, counted from 0; negative ones count from the end."""
    axis = whole(value, "the axis")
    if not -rank <= axis < rank:
        expected = f"{-rank} to {rank - 1}" if rank else "none: a scalar has no axes"
        raise TypeRuleError("the axis is out of range", expected, str(axis))
    return axis % rank


def axes_of(value: Any, rank: int) -> tuple[int, ...]:
    """The axes of a list or of one axis; all axes for none."""
    if value is None:
        return tuple(range(rank))
    return tuple(sorted({axis_of(axis, rank) for axis in (value if isinstance(value, list) else [value])}))


def shape_of(value: Any) -> tuple[Dim, ...]:
    shape = as_shape(value)
    if shape is None:
        raise TypeRuleError("not a shape", "a list of whole numbers, at least 0", describe(value))
    return shape


def pair(value: Any, what: str) -> tuple[int, int]:
    """A number for both directions, or a list of two."""
    items = value if isinstance(value, list) else [value, value]
    if len(items) != 2:
        raise TypeRuleError(f"{what} is not a pair", "a number or a list of two", describe(value))
    return whole(items[0], what), whole(items[1], what)


def pairs(value: Any, what: str) -> tuple[tuple[int, int], ...]:
    """A list of two numbers for each axis."""
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise TypeRuleError(f"{what} is not a list of pairs", "[[before, after], …]", describe(value))
    return tuple(pair(item, what) for item in value)


def dtype_of(value: Any) -> str:
    if not isinstance(value, str) or value not in DTYPES:
        raise TypeRuleError("unknown dtype", ", ".join(f'"{dtype}"' for dtype in DTYPES), describe(value))
    return value
