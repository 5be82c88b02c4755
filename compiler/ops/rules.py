"""What the rules of ops share: checks with messages for model authors, the adjoint of broadcasting, and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import GradientRule
from compiler.ir.types import FLOATS, INTEGERS, Batch, Dim, Shape, TensorType, TypeRuleError, extent, show_shape

NUMBERS = FLOATS + INTEGERS
SIGNED = (*FLOATS, "i32", "i64")


def expect_dtype(type: TensorType, dtypes: Sequence[str], what: str = "the operand") -> None:
    if type.dtype not in dtypes:
        raise TypeRuleError(f"{what} has the wrong dtype", " or ".join(dtypes), str(type))


def expect_same_dtype(types: Sequence[TensorType]) -> None:
    if len({type.dtype for type in types}) > 1:
        raise TypeRuleError("the operands differ in dtype", "one dtype for all", " and ".join(map(str, types)))


def expect_rank(type: TensorType, rank: int, what: str = "the operand") -> None:
    if type.rank != rank:
        dimensions = "1 dimension" if rank == 1 else f"{rank} dimensions"
        raise TypeRuleError(f"{what} has the wrong number of dimensions", dimensions, str(type))


def expect_static(sizes: Sequence[Dim], what: str) -> tuple[int, ...]:
    """The sizes as integers; refuses the batch dimension."""
    known = tuple(size for size in sizes if not isinstance(size, Batch))
    if len(known) < len(sizes):
        raise TypeRuleError(f"{what} cannot be the batch", "sizes known at compile time", show_shape(sizes))
    return known


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def expect_integer(name: str, value: Any, least: int = 0) -> None:
    if not (is_integer(value) and value >= least):
        raise TypeRuleError(f"{name} is not valid", f"a whole number, at least {least}", show_attribute(value))


def expect_integers(name: str, values: Any, count: int, least: int = 0) -> None:
    """An attribute of `count` integers, none below `least`."""
    if not (isinstance(values, tuple) and len(values) == count and all(is_integer(v) and v >= least for v in values)):
        numbers = "1 whole number" if count == 1 else f"{count} whole numbers"
        raise TypeRuleError(f"{name} is not valid", f"{numbers}, at least {least}", show_attribute(values))


def expect_shape(shape: Any) -> Shape:
    """An attribute that is a shape; TensorType checks the range of its dimensions."""
    if not (isinstance(shape, tuple) and all(isinstance(dim, Batch) or is_integer(dim) for dim in shape)):
        raise TypeRuleError("the shape is not valid", "a list of whole numbers", show_attribute(shape))
    return shape


def expect_axes(axes: Any, rank: int) -> tuple[int, ...]:
    """An attribute that lists axes, ascending, each once."""
    ascending = isinstance(axes, tuple) and all(map(is_integer, axes)) and list(axes) == sorted(set(axes))
    if not ascending or any(not 0 <= axis < rank for axis in axes):
        allowed = f"axes 0 to {rank - 1}, each once" if rank > 1 else "axis 0" if rank else "no axes: this is a scalar"
        raise TypeRuleError("an axis is out of range", allowed, show_attribute(axes))
    return axes


def show_attribute(value: Any) -> str:
    return "[" + ",".join(map(show_attribute, value)) + "]" if isinstance(value, tuple | list) else str(value)


def sum_to(builder: Builder, gradient: Value, type: TensorType) -> Value:
    """The adjoint of broadcasting from `type`: sums over the broadcast axes."""
    lead = gradient.type.rank - type.rank
    stretched = [lead + i for i, dim in enumerate(type.shape) if dim == 1 and gradient.type.shape[lead + i] != 1]
    alike = extent(gradient.type.shape) == extent(type.shape)  # then all such axes are 1
    total = gradient if alike else builder.sum(gradient, axes=(*range(lead), *stretched))
    return total if total.type == type else builder.reshape(total, shape=type.shape)


def equation(rule: Callable[..., list[Value | None]]) -> GradientRule:
    """A gradient rule for one result, written as an equation: rule(builder, dy, y, *operands)."""
    return lambda builder, node, dy: rule(builder, dy, node.result, *node.operands)


def zero_gradient(builder: Builder, node: Node, *result_gradients: Value | None) -> list[Value | None]:
    """The result is constant in the operands, almost everywhere."""
    return [None] * len(node.operands)


def zeros(builder: Builder, type: TensorType) -> Value:
    zero = Literal(TensorType(type.dtype), value=0.0)
    return builder.broadcast(zero, shape=type.shape) if type.shape else zero


# Costs: operations on numbers, from the types of operands and results -------------------------------------------------

Types = Sequence[TensorType]


def per_operand(operands: Types, results: Types, batch: int) -> int:
    """One for each element of the first operand."""
    return elements(operands[0], batch)


def per_result(operands: Types, results: Types, batch: int) -> int:
    """One for each element of the first result."""
    return elements(results[0], batch)


def no_operations(operands: Types, results: Types, batch: int) -> int:
    """For ops that only move or choose elements."""
    return 0


def elements(type: TensorType, batch: int) -> int:
    return extent(type.shape).at(batch)
