"""Builtins on compile-time values: shapes, lists, numbers, and tests of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compiler.elaborate.arguments import axes_of, number, shape_of, tensor, whole
from compiler.elaborate.arithmetic import LARGEST_INTEGER, LONGEST_LIST, in_range, numbers
from compiler.elaborate.builtins import builtin, register
from compiler.elaborate.evaluator import Site
from compiler.elaborate.values import describe, is_function, is_number, is_tensor
from compiler.ir.graph import Value
from compiler.ir.types import Dim, TensorType, TypeRuleError, extent

# Shapes ---------------------------------------------------------------------------------------------------------------


def register_fact(name: str, fact: Callable[[TensorType], Any]) -> None:
    register(name, lambda site, x: fact(tensor(site, x).type))


register_fact("shape", lambda type: list(type.shape))
register_fact("rank", lambda type: type.rank)
register_fact("dtype", lambda type: type.dtype)


@builtin
def size(site: Site, x: Any, axes: Any = None) -> Any:
    type = tensor(site, x).type
    elements = count(site, [type.shape[axis] for axis in axes_of(axes, type.rank)])
    return site.cast(elements, "f64") if is_tensor(elements) and type.dtype == "f64" else elements


@builtin
def prod(site: Site, items: Any) -> Any:
    if not isinstance(items, list) or not all(map(is_number, items)):
        return count(site, shape_of(items))
    result = 1
    for item in items:
        result = numbers("*", result, item)
    return result


def count(site: Site, dims: Sequence[Dim]) -> int | Value:
    """The number of elements: a number, or a run-time scalar f32[] when the batch is among the dimensions."""
    total = extent(dims)
    if total.factor > LARGEST_INTEGER:
        raise TypeRuleError("the number is too large", f"at most {LARGEST_INTEGER}", str(total))
    return site.emit("extent", factor=total.factor, power=total.power) if total.power else total.factor


# Lists ----------------------------------------------------------------------------------------------------------------


@builtin
def len_(site: Site, items: Any) -> Any:
    if not isinstance(items, list | str):
        raise TypeRuleError("this has no length", "a list", describe(items))
    return len(items)


@builtin
def range_(site: Site, start: Any, stop: Any = None) -> Any:
    first, last = (0, start) if stop is None else (start, stop)
    items = range(whole(first, "the start"), whole(last, "the end"))
    if len(items) > LONGEST_LIST:
        raise TypeRuleError("the range is too long", f"at most {LONGEST_LIST} items", str(len(items)))
    return list(items)


@builtin
def append(site: Site, items: Any, item: Any) -> Any:
    if not isinstance(items, list) or len(items) >= LONGEST_LIST:
        expected = f"a list of fewer than {LONGEST_LIST} items"
        raise TypeRuleError("nothing can be appended to this", expected, describe(items))
    return [*items, item]


# Numbers --------------------------------------------------------------------------------------------------------------


@builtin
def int_(site: Site, value: Any) -> Any:
    return in_range(int(number(value, "the value")), f"int({value})")


@builtin
def float_(site: Site, value: Any) -> Any:
    return float(number(value, "the value"))


# Tests of values and errors -------------------------------------------------------------------------------------------


def register_test(name: str, test: Callable[[Any], bool]) -> None:
    register(name, lambda site, value: test(value))


register_test("is_number", is_number)
register_test("is_function", is_function)
register_test("is_list", lambda value: isinstance(value, list))
register_test("is_none", lambda value: value is None)


@builtin
def error(site: Site, message: Any, found: Any = None) -> Any:
    if not isinstance(message, str):
        raise TypeRuleError("error: the message is not a string", "a string", describe(message))
    raise TypeRuleError(message, found=None if found is None else describe(found))
