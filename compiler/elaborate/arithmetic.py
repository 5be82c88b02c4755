"""Operators: numbers are computed at compile time, tensors give nodes, and the run-time batch gives either."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from compiler.elaborate.evaluator import Site
from compiler.elaborate.values import Closure, describe, is_number, is_tensor
from compiler.ir.builder import literal
from compiler.ir.graph import Literal, Value
from compiler.ir.types import Batch, TypeRuleError

LARGEST_INTEGER = 10**18
LARGEST_FLOAT = 1e308
LARGEST_EXPONENT = 1_000
LONGEST_LIST = 100_000
LONGEST_STRING = 10_000
TENSOR_OPS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floor_div", "%": "mod", "**": "pow", "@": "matmul",
}  # fmt: skip
COMPARISONS = {"<": ("lt", False), "<=": ("le", False), ">": ("lt", True), ">=": ("le", True)}
PYTHON: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod, "**": operator.pow, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def unary(site: Site, operation: str, operand: Any) -> Any:
    if operation == "not":
        return site.emit("not", operand) if is_tensor(operand) else not boolean(operand)
    if isinstance(operand, Batch):
        operand = site.scalar(operand)
    if is_tensor(operand):
        return site.emit("neg", operand)
    if is_number(operand):
        return -operand
    raise TypeRuleError("- cannot be applied to this", "a number or a tensor", describe(operand))


def binary(site: Site, operation: str, left: Any, right: Any) -> Any:
    """`left operation right`; raises TypeRuleError with expected and found."""
    if operation in ("and", "or"):
        return logic(site, operation, left, right)
    if is_tensor(left) or is_tensor(right):
        return tensors(site, operation, left, right)
    batches = isinstance(left, Batch) + isinstance(right, Batch)
    if batches and not (batches == 2 and operation in ("==", "!=")):
        return with_batch(site, operation, left, right)
    if operation in ("==", "!="):
        return equal(left, right) == (operation == "==")
    if is_number(left) and is_number(right) and operation in PYTHON:
        return numbers(operation, left, right)
    if operation == "+" and type(left) is type(right) and isinstance(left, str | list):
        return joined(left, right)
    expected = "tensors" if operation == "@" else "numbers or tensors"
    raise TypeRuleError(f"{operation} cannot be applied to these", expected, f"{describe(left)} and {describe(right)}")


def logic(site: Site, operation: str, left: Any, right: Any) -> Any:
    """`and` and `or`; at compile time, only if the left operand alone does not decide."""
    if is_tensor(left) or is_tensor(right):
        return site.emit(operation, *(each if is_tensor(each) else boolean(each) for each in (left, right)))
    boolean(left)
    return boolean(right)


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeRuleError("not a boolean", "true or false", describe(value))
    return value


def numbers(operation: str, left: int | float, right: int | float) -> int | float | bool:
    """Compile-time arithmetic, kept within what a dimension or a float can hold."""
    text = f"{left} {operation} {right}"
    if operation == "**" and (abs(left) > LARGEST_INTEGER or abs(right) > LARGEST_EXPONENT):
        expected = f"a base up to {LARGEST_INTEGER}, an exponent up to {LARGEST_EXPONENT}"
        raise TypeRuleError("the power is too large", expected, text)
    try:
        return in_range(PYTHON[operation](left, right), text)
    except ZeroDivisionError:
        raise TypeRuleError("division by zero", "a divisor other than 0", text) from None
    except OverflowError:
        raise TypeRuleError("the number is too large", found=text) from None


def in_range(result: Any, text: str) -> Any:
    """The result of a computation, unless it is not a real number or is too large."""
    if isinstance(result, complex) or result != result:
        raise TypeRuleError("the result is not a number", found=text)
    limit = LARGEST_FLOAT if isinstance(result, float) else LARGEST_INTEGER
    if abs(result) > limit:
        raise TypeRuleError("the number is too large", f"at most {limit}", text)
    return result


def joined(left: Any, right: Any) -> Any:
    """The concatenation of two strings or two lists."""
    longest, what = (LONGEST_STRING, "characters") if isinstance(left, str) else (LONGEST_LIST, "items")
    if len(left) + len(right) > longest:
        raise TypeRuleError("the result is too long", f"at most {longest} {what}", str(len(left) + len(right)))
    return left + right


def equal(left: Any, right: Any) -> bool:
    """Whether two compile-time values are the same: lists by their items, functions by declaration and hyperparameters.

    It does not recurse, as lists may nest deeply, and gives up on lists that share so many parts that it would not end.
    """
    pending, steps = [(left, right)], 0
    while pending:
        a, b = pending.pop()
        steps += 1
        if steps > LONGEST_LIST:
            raise TypeRuleError("the lists are too long to compare", f"at most {LONGEST_LIST} items")
        if isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            pending += zip(a, b, strict=True) if a is not b else ()
        elif isinstance(a, Closure) and isinstance(b, Closure):
            if a.declaration is not b.declaration or (a.hyperparameters is None) != (b.hyperparameters is None):
                return False
            pending += [(value, (b.hyperparameters or {})[name]) for name, value in (a.hyperparameters or {}).items()]
        elif a != b or isinstance(a, bool) != isinstance(b, bool):
            return False
    return True


def with_batch(site: Site, operation: str, left: Any, right: Any) -> Any:
    """`4 * B` and `2 * B // 2` stay dimensions; any other arithmetic makes the batch a run-time scalar."""
    if operation == "*" and isinstance(right, Batch):
        left, right = right, left
    if isinstance(left, Batch) and isinstance(right, int) and not isinstance(right, bool) and right > 0:
        if operation == "*":
            return Batch(numbers("*", left.factor, right))  # type: ignore[arg-type]
        if operation == "//" and left.factor % right == 0:
            return Batch(left.factor // right)
    return tensors(site, operation, left, right)


def tensors(site: Site, operation: str, left: Any, right: Any) -> Value:
    """An operator with at least one tensor or the batch.

    Numbers take the tensor's dtype, and so does the batch if it is f64; integers become f32 if needed.
    """
    given = next((each.type.dtype for each in (left, right) if is_tensor(each)), "f32")
    operands = [site.scalar(each, given) if isinstance(each, Batch) else each for each in (left, right)]
    dtype = next(each.type.dtype for each in operands if is_tensor(each))
    for each in operands:
        if not (is_tensor(each) or is_number(each) or (isinstance(each, bool) and dtype == "bool")):
            raise TypeRuleError(f"{operation} cannot be applied to this", "a tensor or a number", describe(each))
    whole = dtype not in ("f32", "f64", "bool")
    if whole and (operation in ("/", "**") or any(isinstance(each, float) for each in operands)):
        operands, dtype = [as_float(site, each, "f32") for each in operands], "f32"
    x, y = (each if is_tensor(each) else literal(each, dtype) for each in operands)  # type: ignore[arg-type]
    if operation in COMPARISONS:
        name, swapped = COMPARISONS[operation]
        return site.emit(name, y, x) if swapped else site.emit(name, x, y)
    if operation in ("==", "!="):
        same = site.emit("eq", x, y)
        return same if operation == "==" else site.emit("not", same)
    return site.emit(TENSOR_OPS[operation], x, y)


def as_float(site: Site, value: Any, dtype: str) -> Any:
    """A whole-number tensor as floats; numbers and float tensors as they are."""
    if isinstance(value, Literal):
        return literal(value.value, dtype)
    return site.cast(value, dtype) if is_tensor(value) and not value.type.is_float else value
