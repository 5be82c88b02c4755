"""Which values the integers of a program can have: intervals through a graph, and limits of its inputs.

An interval is a pair (least, largest). Integers that may overflow, and all that is unknown, have the interval of their
dtype. A float has one only if it is neither NaN nor infinite for any input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from compiler.ir.graph import Graph, Literal, Module, Node, Value
from compiler.ir.op import LOOP
from compiler.ir.types import NUMPY_NAMES, Batch, Dim, TensorType, extent

Interval = tuple[float, float]
Known = Sequence[Interval | None]
Rule = Callable[[Node, Known], Interval | None]  # None: unknown

EXACT = 2**24  # whole numbers up to this one are exact in f32
LARGEST = 1e30  # floats beyond it are not followed: they might overflow
ROUNDING = 1e-6  # relative: more than an operation in f32 rounds

# Rules by op ----------------------------------------------------------------------------------------------------------


def combined(function: Callable[[float, float], float]) -> Rule:
    """For a function that is monotonic in each operand: the extremes of its values at the ends."""

    def rule(node: Node, known: Known) -> Interval | None:
        if None in known:
            return None
        a, b = known
        values = [function(x, y) for x in a for y in b]  # type: ignore[union-attr]
        return min(values), max(values)

    return rule


def mapped(function: Callable[[float], float]) -> Rule:
    """For a monotonic function of one operand."""

    def rule(node: Node, known: Known) -> Interval | None:
        if known[0] is None:
            return None
        first, last = (function(end) for end in known[0])
        return min(first, last), max(first, last)

    return rule


def absolute(node: Node, known: Known) -> Interval | None:
    if known[0] is None:
        return None
    low, high = known[0]
    return max(low, -high, 0), max(-low, high)


def quotient(node: Node, known: Known) -> Interval | None:
    """Of integers, for a positive divisor."""
    a, b = known
    if node.result.type.is_float or a is None or b is None or b[0] < 1:
        return None
    values = [x // y for x in a for y in b]
    return min(values), max(values)


def remainder(node: Node, known: Known) -> Interval | None:
    """Of integers, for a positive divisor: it has the sign of the divisor."""
    a, b = known
    if node.result.type.is_float or a is None or b is None or b[0] < 1:
        return None
    return a if a[0] >= 0 and a[1] < b[0] else (0, b[1] - 1)


def clipped(node: Node, known: Known) -> Interval | None:
    low, high = node.attributes["low"], node.attributes["high"]
    return known[0] and (min(max(known[0][0], low), high), min(max(known[0][1], low), high))


def converted(node: Node, known: Known) -> Interval | None:
    """A cast; floats are cut to whole numbers. As a bool, all but 0 is true, also 0.5."""
    if node.result.type.dtype == "bool":
        return None
    if known[0] is None or node.result.type.is_float or not node.operands[0].type.is_float:
        return known[0]
    return math.trunc(known[0][0]), math.trunc(known[0][1])


def any_of(known: Known) -> Interval | None:
    """For elements of any of the operands."""
    found = [each for each in known if each is not None]
    return (min(a for a, _ in found), max(b for _, b in found)) if found and len(found) == len(known) else None


def padded(node: Node, known: Known) -> Interval | None:
    value = node.attributes["value"]
    return any_of([known[0], (value, value)]) if math.isfinite(value) else None


def maximum(node: Node, known: Known) -> Interval | None:
    return known[0] if elements_along(node) else None


def total(node: Node, known: Known) -> Interval | None:
    count = elements_along(node)
    if count is None or known[0] is None or node.result.type.is_float:
        return None
    return known[0][0] * count, known[0][1] * count


def elements_along(node: Node) -> int | None:
    """The number of elements along the axes of a reduction; None if it depends on the batch."""
    sizes = extent([node.operands[0].type.shape[axis] for axis in node.reduced_axes])
    return None if sizes.power else sizes.factor


def below(size: Dim) -> Interval | None:
    return (0, max(size - 1, 0)) if isinstance(size, int) else (0, 2**31 - 1)


def inside_table(node: Node, known: Known) -> Interval | None:
    (low, high), last = known[0] or (0, math.inf), node.attributes["size"] - 1
    return (max(low, 0), min(high, last)) if low <= last and high >= 0 else (0, last)


def same(node: Node, known: Known) -> Interval | None:
    return known[0]


RULES: dict[str, Rule] = {
    "add": combined(lambda a, b: a + b),
    "sub": combined(lambda a, b: a - b),
    "mul": combined(lambda a, b: a * b),
    "max": combined(max),
    "min": combined(min),
    "neg": mapped(lambda a: -a),
    "sign": mapped(lambda a: (a > 0) - (a < 0)),
    "floor": mapped(math.floor),
    "abs": absolute,
    "floor_div": quotient,
    "mod": remainder,
    "clip": clipped,
    "cast": converted,
    "select": lambda node, known: any_of(known[1:]),
    "concat": lambda node, known: any_of(known),
    "pad": padded,
    "reduce_max": maximum,
    "sum": total,
    "iota": lambda node, known: below(node.attributes["size"]),
    "argmax": lambda node, known: below(node.operands[0].type.shape[node.attributes["axis"]]),
    "random": lambda node, known: (0.0, 1.0) if node.attributes["distribution"] == "uniform" else None,
    "check_index": inside_table,
    **dict.fromkeys(("reshape", "transpose", "broadcast", "slice", "flip", "copy", "stop_gradient", "gather"), same),
}

# Through a graph ------------------------------------------------------------------------------------------------------


def whole(type: TensorType) -> Interval | None:
    """All values of a dtype."""
    if type.is_float:
        return None
    if type.dtype == "bool":
        return 0, 1
    limits = np.iinfo(NUMPY_NAMES[type.dtype])
    return int(limits.min), int(limits.max)


def fitted(type: TensorType, found: Interval | None) -> Interval | None:
    """An interval of exact results as one of a dtype: integers wrap around if they overflow, floats are rounded."""
    if found is None:
        return whole(type)
    low, high = found
    if not type.is_float:
        limits = whole(type)
        return found if limits and limits[0] <= low and high <= limits[1] else limits
    if not (-LARGEST <= low <= high <= LARGEST):
        return None
    return rounded(low, -1), rounded(high, 1)


def rounded(value: float, direction: int) -> float:
    exact = float(value).is_integer() and abs(value) <= EXACT
    return value if exact else value + direction * ROUNDING * (abs(value) + ROUNDING)


def interval_of(value: Value, known: Mapping[Value, Interval | None]) -> Interval | None:
    """The interval of a value of a graph, or of a number."""
    if not isinstance(value, Literal):
        return known.get(value)
    return fitted(value.type, (value.value, value.value)) if math.isfinite(value.value) else None


def intervals(graph: Graph, given: Mapping[Value, Interval | None]) -> dict[Value, Interval | None]:
    """The interval of every value, those in bodies too; `given` are those of inputs that are known."""
    found = {value: given.get(value, whole(value.type)) for value in graph.inputs}

    for node in graph.nodes:
        operands = [interval_of(operand, found) for operand in node.operands]
        if "body" in node.attributes:
            carries = node.attributes["carries"] if LOOP in node.op.traits else 0
            inputs = dict(zip(node.body.inputs[carries:], operands[carries:], strict=True))
            found |= intervals(node.body, inputs)
            outputs = [interval_of(value, found) for value in node.body.outputs.values()]
            first = [any_of(pair) for pair in zip(operands[:carries], outputs[:carries], strict=True)]
            found |= zip(node.results, (*first, *outputs[carries:]), strict=True)
            continue
        rule = RULES.get(node.op.name)
        for result in node.results:
            found[result] = fitted(result.type, rule(node, operands) if rule else None)
    return found


# Limits of inputs -----------------------------------------------------------------------------------------------------

SAME_NUMBERS = ("reshape", "broadcast", "cast", "transpose", "flip", "copy", "stop_gradient")  # all numbers, no others


def index_limits(module: Module) -> dict[str, int]:
    """The number of values an integer input or target may have: 0 … n - 1.

    They follow from the tables that it is an index of, unchanged, in any of the graphs; else from `iota(n)` that it is
    compared with. Data are checked against them when they are loaded.
    """
    tables: dict[str, int] = {}
    compared: dict[str, int] = {}
    for graph in module.values():
        find_limits(graph, {value: value.name for value in graph.of_kind("input", "target")}, tables, compared)
    return compared | tables


def find_limits(graph: Graph, source: dict[Value, str], tables: dict[str, int], compared: dict[str, int]) -> None:
    """Adds the limits of a graph, in which `source` has the inputs by value."""
    for node in graph.nodes:
        known = [source.get(operand, "") for operand in node.operands]
        if not any(known):
            continue
        name = node.op.name
        if name == "check_index":
            source[node.result] = known[0]
            lower(tables, known[0], node.attributes["size"])
        elif name in SAME_NUMBERS and known[0] and not (node.result.type.is_float or node.result.type.dtype == "bool"):
            source[node.result] = known[0]
        elif node.op.lookup:
            table, index = node.op.lookup
            lower(tables, known[index], node.operands[table].type.shape[0])
        elif name == "eq":
            for input, other in zip(known, reversed(node.operands), strict=True):
                if size := iota_size(other):
                    compared[input] = max(size, compared.get(input, 0))
        elif "body" in node.attributes:
            carries = node.attributes.get("carries", 0)
            inner = dict(zip(node.body.inputs[carries:], known[carries:], strict=True))
            find_limits(node.body, {value: each for value, each in inner.items() if each}, tables, compared)
    compared.pop("", None)


def lower(limits: dict[str, int], name: str, size: Dim) -> None:
    if name and not isinstance(size, Batch):
        limits[name] = min(size, limits.get(name, size))


def iota_size(value: Value) -> int:
    """n if the value is iota(n), maybe reshaped, broadcast or cast; else 0."""
    while value.node and value.node.op.name in SAME_NUMBERS:
        value = value.node.operands[0]
    size = value.node.attributes["size"] if value.node and value.node.op.name == "iota" else 0
    return size if isinstance(size, int) else 0


def limited(graph: Graph, limits: Mapping[str, int]) -> dict[Value, Interval | None]:
    """The intervals of a graph whose data were checked against limits. Floats may be NaN, which no check finds."""
    integers = [value for value in graph.of_kind("input", "target") if not value.type.is_float]
    return intervals(graph, {v: (0, limits[v.name] - 1) for v in integers if v.name in limits})
