"""Operators: on numbers at compile time, on tensors as nodes, and on the run-time batch as either."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from compiler.elaborate.context import Site
from compiler.elaborate.values import describe, is_number, is_tensor
from compiler.ir.builder import literal
from compiler.ir.graph import Literal, Value
from compiler.ir.types import Batch, TypeRuleError

LARGEST_INTEGER = 10**18
TENSOR_OPS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow", "@": "matmul"}
COMPARISONS = {"<": ("lt", False), "<=": ("le", False), ">": ("lt", True), ">=": ("le", True)}
PYTHON: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod, "**": operator.pow, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def unary(site: Site, operation: str, operand: Any) -> Any:
    if operation == "not":
        if is_tensor(operand):
            return site.emit("not", operand)
        return not truth(operand)
    if is_tensor(operand):
        return site.emit("neg", operand)
    if is_number(operand):
        return -operand
    raise TypeRuleError("- needs a number or a tensor", found=describe(operand))


def binary(site: Site, operation: str, left: Any, right: Any) -> Any:
    """`left operation right`; raises TypeRuleError with expected and found."""
    if operation in ("and", "or"):
        if is_tensor(left) or is_tensor(right):
            return site.emit(operation, left, right)
        return truth(right)
    if is_tensor(left) or is_tensor(right):
        return tensors(site, operation, left, right)
    if operation in ("==", "!="):
        return (left == right and isinstance(left, bool) == isinstance(right, bool)) == (operation == "==")
    if isinstance(left, Batch) or isinstance(right, Batch):
        return with_batch(site, operation, left, right)
    if is_number(left) and is_number(right) and operation in PYTHON:
        return numbers(operation, left, right)
    if operation == "+" and type(left) is type(right) and isinstance(left, str | list):
        return left + right
    raise TypeRuleError(
        f"{operation} does not take these", "numbers or tensors", f"{describe(left)} and {describe(right)}"
    )


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeRuleError("not a truth value", "true or false", describe(value))
    return value


def numbers(operation: str, left: int | float, right: int | float) -> int | float | bool:
    """Compile-time arithmetic, kept within what a dimension or a float can hold."""
    if operation == "**" and (abs(left) > LARGEST_INTEGER or abs(right) > 1_000):
        raise TypeRuleError("the power is too large", f"a base up to {LARGEST_INTEGER}, an exponent up to 1000")
    try:
        result = PYTHON[operation](left, right)
    except ZeroDivisionError:
        raise TypeRuleError("division by zero") from None
    except OverflowError:
        raise TypeRuleError("the number is too large") from None
    if isinstance(result, complex) or (not isinstance(result, bool) and not abs(result) <= 1e308):
        raise TypeRuleError("the result is not a number", found=f"{left} {operation} {right}")
    if isinstance(result, int) and abs(result) > LARGEST_INTEGER:
        raise TypeRuleError("the number is too large", f"at most {LARGEST_INTEGER}", f"{left} {operation} {right}")
    return result


def with_batch(site: Site, operation: str, left: Any, right: Any) -> Any:
    """`4 * B` and `2 * B // 2` stay dimensions; any other arithmetic makes the batch a run-time scalar."""
    if operation == "*" and isinstance(right, Batch):
        left, right = right, left
    if isinstance(left, Batch) and isinstance(right, int) and not isinstance(right, bool) and right > 0:
        if operation == "*":
            return Batch(left.factor * right)
        if operation == "//" and left.factor % right == 0:
            return Batch(left.factor // right)
    sides = [site.scalar(side) if isinstance(side, Batch) else side for side in (left, right)]
    if not all(is_tensor(side) or is_number(side) for side in sides):
        raise TypeRuleError(f"{operation} does not take these", "numbers", f"{describe(left)} and {describe(right)}")
    return tensors(site, operation, *sides)


def tensors(site: Site, operation: str, left: Any, right: Any) -> Value:
    """An operator with at least one tensor; numbers take the tensor's dtype, integers become f32 where they must."""
    sides = [site.scalar(side) if isinstance(side, Batch) else side for side in (left, right)]
    for side in sides:
        if not is_tensor(side) and not is_number(side) and not isinstance(side, bool):
            raise TypeRuleError(f"{operation} does not take this", "a tensor or a number", describe(side))
    dtype = next(side.type.dtype for side in sides if is_tensor(side))
    whole = dtype not in ("f32", "f64")
    if whole and dtype != "bool" and (operation in ("/", "**") or any(isinstance(side, float) for side in sides)):
        sides, dtype = [as_float(site, side) for side in sides], "f32"
    x, y = (side if is_tensor(side) else literal(side, dtype) for side in sides)
    if operation in COMPARISONS:
        name, swapped = COMPARISONS[operation]
        return site.emit(name, y, x) if swapped else site.emit(name, x, y)
    if operation in ("==", "!="):
        equal = site.emit("eq", x, y)
        return equal if operation == "==" else site.emit("not", equal)
    if operation in ("//", "%"):
        quotient = site.emit("floor", site.emit("div", x, y))
        return quotient if operation == "//" else site.emit("sub", x, site.emit("mul", quotient, y))
    return site.emit(TENSOR_OPS[operation], x, y)


def as_float(site: Site, value: Any) -> Any:
    if is_tensor(value) and not isinstance(value, Literal):
        return value if value.type.is_float else site.emit("cast", value, dtype="f32")
    return value
