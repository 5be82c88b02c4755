"""One element of a tensor as C statements: how each op computes it from elements of its operands.

`Elements.at(value, index)` writes the statements it needs, each element once per block, and returns an expression. A
kernel that computes its results element by element so keeps everything between operands and results in registers:
reshaping, transposing, slicing and padding become index arithmetic, and a pooling window becomes a loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from compiler.ir.graph import Graph, Literal, Node, Origin, Value
from compiler.ir.op import ELEMENTWISE
from compiler.ir.printer import number
from compiler.ir.types import Dim, Shape, TensorType
from compiler.ops import OPS
from compiler.targets.c_text.indices import (
    Coordinate,
    ElementIndex,
    Indices,
    elements,
    minus,
    plus,
    quotient,
    size_of,
    times,
)
from compiler.targets.c_text.scalars import C_TYPES, EXPRESSIONS, ExpressionWriter, constant, least

INDENT = "    "
SHORT = 16  # numbers that are added one after another without keeping what rounding loses
ElementRule = Callable[["Elements", Node, ElementIndex, int], str]  # an element of the result with this number


class Elements:
    """Writes the statements of a kernel whose operands are arrays in reading order. As CUDA; C has a subclass."""

    types: Mapping[str, str] = C_TYPES  # of variables
    expressions: Mapping[str, ExpressionWriter] = EXPRESSIONS
    index_type = "int"
    rules: Mapping[str, ElementRule] = {}  # of ops, instead of those in RULES

    def __init__(self, body: Graph, arrays: Mapping[Value, str], indices: Indices):
        self.arrays = arrays
        self.indices = indices
        self.numbers = number(body)
        self.reads: dict[Value, int] = {}
        for value in (operand for node in body.nodes for operand in node.operands):
            self.reads[value] = self.reads.get(value, 0) + 1
        self.lines: list[str] = []
        self.depth = 0
        self.blocks: list[dict[tuple[Value, ElementIndex], str]] = [{}]  # elements known in each block, outermost first
        self.reduced: dict[Value, str] = {}  # variables of values that the kernel has reduced
        self.lost: dict[str, str] = {}  # by the name of a long sum: the variable with what rounding has added to it
        self.used: set[str] = {*arrays.values(), "B", "i", "k", "r"}
        self.origin: Origin | None = None

    def at(self, value: Value, index: ElementIndex) -> str:
        """An expression without side effects, simple enough to be an operand."""
        if isinstance(value, Literal):
            return constant(value.value, value.type.dtype)
        if value in self.reduced:
            return self.reduced[value]
        index = tuple(0 if dim == 1 else part for part, dim in zip(index, value.type.shape, strict=True))
        for block in reversed(self.blocks):
            if (value, index) in block:
                return block[value, index]
        if value in self.arrays:
            text = f"{self.arrays[value]}[{self.indices.join(index, value.type.shape)}]"
            found = self.variable(value, text) if self.reads.get(value, 0) > 1 else text
        else:
            node = value.node
            assert node is not None, f"{value.name} is not an operand of the kernel"
            if node.op.name in FORWARDED:
                return self.at(node.operands[0], FORWARDED[node.op.name](self, node, index))
            found = self.computed(node, value, index)
        self.blocks[-1][value, index] = found
        return found

    def computed(self, node: Node, value: Value, index: ElementIndex) -> str:
        """The variable with an element of a node's result."""
        if ELEMENTWISE in node.op.traits:
            values = [self.at(each, broadcast_index(each.type.shape, index)) for each in node.operands]
            text = self.expressions[node.op.name](node, values)
        else:
            rule = self.rules.get(node.op.name) or RULES[node.op.name]
            text = rule(self, node, index, node.results.index(value))
        if text.isidentifier():
            return text
        self.place(node.origin)
        return self.variable(value, text)

    def place(self, origin: Origin | None) -> None:
        """A comment whenever the place in the model changes."""
        if origin is not None and origin != self.origin:
            self.write("// " + re.sub(r"[^\w ./:()-]", "?", str(origin), flags=re.ASCII))  # it is inside a string
            self.origin = origin

    def variable(self, value: Value, text: str) -> str:
        name = self.fresh(f"t{self.numbers.get(value, value.name)}")
        self.write(f"const {self.types[value.type.dtype]} {name} = {text};")
        return name

    def fresh(self, wanted: str) -> str:
        """A name that is not used in this kernel."""
        name, count = wanted, 1
        while name in self.used:
            count += 1
            name = f"{wanted}_{count}"
        self.used.add(name)
        return name

    def accumulator(self, type: TensorType, text: str, wanted: str = "sum") -> str:
        """A variable that changes."""
        name = self.fresh(wanted)
        self.write(f"{self.types[type.dtype]} {name} = {text};")
        return name

    def sum_of(self, type: TensorType, count: Coordinate, wanted: str = "sum") -> str:
        """A variable to which that many numbers will be added with `add`."""
        name = self.accumulator(type, constant(0, type.dtype), wanted)
        self.keep_digits(name, type, count)
        return name

    def keep_digits(self, name: str, type: TensorType, count: Coordinate) -> None:
        """Makes `add` keep the digits of a sum of that many numbers from here on; those of f64 are enough."""
        self.lost.pop(name, None)
        if type.dtype == "f32" and (isinstance(count, str) or count > SHORT):
            self.lost[name] = self.accumulator(type, constant(0, type.dtype), "lost")

    def add(self, name: str, value: str) -> None:
        """Adds a value to a sum."""
        lost = self.lost.get(name)
        self.write(f"add_compensated({name}, {lost}, {value});" if lost else f"{name} += {value};")

    def combine(self, node: Node, name: str, value: str) -> None:
        """Adds a value to a sum, or to a maximum."""
        if node.op.reduces == "max":
            self.write(f"{name} = max_of({name}, {value});")
        else:
            self.add(name, value)

    def nearest(self, row: Coordinate, rows: Dim) -> str:
        """The row, or the nearest one of a table: no index reads or writes outside of it."""
        return f"min(max({row}, 0), {minus(size_of(rows), 1)})"

    def write(self, line: str) -> None:
        self.lines.append(INDENT * self.depth + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Statements in braces; the elements they compute are not known after them."""
        self.write(f"{head} {{")
        self.depth += 1
        self.blocks.append({})
        origin = self.origin
        yield
        self.blocks.pop()
        self.depth -= 1
        self.origin = origin
        self.write("}")

    @contextmanager
    def loops(self, sizes: Sequence[Coordinate], wanted: str = "j") -> Iterator[list[Coordinate]]:
        """Nested loops, one for each size that is not 1; the coordinates along all of them."""
        if not sizes:
            yield []
            return
        size, *others = sizes
        if size == 1:
            with self.loops(others, wanted) as positions:
                yield [0, *positions]
            return
        name = self.fresh(wanted)
        with (
            self.block(f"for ({self.index_type} {name} = 0; {name} < {size}; ++{name})"),
            self.loops(others, wanted) as positions,
        ):
            yield [name, *positions]


def broadcast_index(shape: Shape, index: ElementIndex) -> ElementIndex:
    """The index in an operand of a shape that is broadcast to the shape of the index."""
    lead = len(index) - len(shape)
    return tuple(0 if dim == 1 else part for dim, part in zip(shape, index[lead:], strict=True))


# Elements at another place of the operand: op -> their index there ----------------------------------------------------


def transposed(e: Elements, node: Node, index: ElementIndex) -> ElementIndex:
    result: list[Coordinate] = [0] * len(index)
    for axis, part in zip(node.attributes["permutation"], index, strict=True):
        result[axis] = part
    return tuple(result)


def sliced(e: Elements, node: Node, index: ElementIndex) -> ElementIndex:
    steps = zip(index, node.attributes["start"], node.attributes["step"], strict=True)
    return tuple(plus(times(part, step), start) for part, start, step in steps)


def flipped(e: Elements, node: Node, index: ElementIndex) -> ElementIndex:
    shape, axes = node.result.type.shape, node.attributes["axes"]
    return tuple(
        minus(plus(size_of(dim), -1), part) if axis in axes else part
        for axis, (dim, part) in enumerate(zip(shape, index, strict=True))
    )


FORWARDED: dict[str, Callable[[Elements, Node, ElementIndex], ElementIndex]] = {
    "reshape": lambda e, n, index: e.indices.reshaped(index, n.result.type.shape, n.operands[0].type.shape),
    "broadcast": lambda e, node, index: broadcast_index(node.operands[0].type.shape, index),
    "transpose": transposed,
    "slice": sliced,
    "flip": flipped,
    "stop_gradient": lambda e, node, index: index,
    "check_index": lambda e, node, index: index,
}


# Elements that are computed: op -> the expression ---------------------------------------------------------------------


def joined(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """concat: an element of the operand that contains the coordinate along the axis."""
    axis = node.attributes["axis"]
    name = e.fresh(f"t{e.numbers[node.result]}")
    e.write(f"{e.types[node.result.type.dtype]} {name};")
    start: Coordinate = 0
    operands = [operand for operand in node.operands if 0 not in operand.type.shape]
    for count, operand in enumerate(operands, 1):
        end = plus(start, size_of(operand.type.shape[axis]))
        head = "else" if count == len(operands) else f"if ({index[axis]} < {end})"
        with e.block(f"else {head}" if 1 < count < len(operands) else head if len(operands) > 1 else ""):
            part = (*index[:axis], minus(index[axis], start), *index[axis + 1 :])
            e.write(f"{name} = {e.at(operand, part)};")
        start = end
    return name


def padded(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    low = node.attributes["low"]
    interior = node.attributes["interior"] or (0,) * len(low)
    x, shape = node.operands[0], node.operands[0].type.shape
    value = constant(node.attributes["value"], x.type.dtype)
    if 0 in shape:
        return value
    conditions: list[str] = []
    inside: list[Coordinate] = []
    for axis, part in enumerate(index):
        spread, moved = interior[axis] + 1, minus(part, low[axis])
        size = plus(times(plus(size_of(shape[axis]), -1), spread), 1)
        conditions += within(moved, size) if (node.attributes["high"][axis], low[axis], spread) != (0, 0, 1) else []
        conditions += [f"({moved}) % {spread} == 0"] if spread > 1 else []
        inside.append(quotient(moved, spread))
    name = e.accumulator(node.result.type, value, f"t{e.numbers[node.result]}")
    with e.block(f"if ({' && '.join(conditions) or 'true'})"):
        e.write(f"{name} = {e.at(x, tuple(inside))};")
    return name


def within(position: Coordinate, size: Coordinate) -> list[str]:
    """The conditions for a coordinate to be within an axis."""
    if isinstance(position, int) and isinstance(size, int):
        return [] if 0 <= position < size else ["false"]
    return [f"{position} >= 0", f"{position} < {size}"]


def extent(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    factor, power = node.attributes["factor"], node.attributes["power"]
    return " * ".join([constant(float(factor), "f32"), *["(float)B"] * power])


def gathered(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    table, indices = node.operands
    row = e.nearest(e.at(indices, index[: indices.type.rank]), table.type.shape[0])
    return e.at(table, (row, *index[indices.type.rank :]))


def scattered(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """scatter_add: every row searches for its updates, in their order, so the sum is the same in every run."""
    indices, updates = node.operands
    if 0 in indices.type.shape:
        return constant(0, node.result.type.dtype)
    total = e.sum_of(node.result.type, elements(indices.type.shape))
    with e.loops([size_of(dim) for dim in indices.type.shape]) as place:
        row = e.nearest(e.at(indices, tuple(place)), node.result.type.shape[0])
        with e.block(f"if ({row} == {index[0]})"):
            e.add(total, e.at(updates, (*place, *index[1:])))
    return total


def drawn(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    seed, step, *first = (e.at(operand, ()) for operand in node.operands)
    shape = node.result.type.shape
    place = e.indices.join(index, shape)
    if first:
        place = plus(times(first[0], elements(shape[1:])), place)
    return f"philox_uniform({seed}, {step}, {node.attributes['stream']}ULL, {place})"


def reduced(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """A reduction of few elements, one after another."""
    x, axes = node.operands[0], node.reduced_axes
    start = first_value(node)
    if any(x.type.shape[axis] == 0 for axis in axes):
        return start
    result = e.accumulator(node.result.type, start)
    if node.op.reduces == "sum":
        e.keep_digits(result, node.result.type, elements([x.type.shape[axis] for axis in axes]))
    best = e.accumulator(x.type, least(x.type.dtype), "best") if node.op.reduces == "argmax" else result
    others = iter(index)
    keep = node.attributes.get("keepdims", False)
    outer = [next(others) if keep or axis not in axes else 0 for axis in range(x.type.rank)]
    with e.loops([size_of(dim) if axis in axes else 1 for axis, dim in enumerate(x.type.shape)]) as inner:
        place = tuple(inner[axis] if axis in axes else outer[axis] for axis in range(x.type.rank))
        values = [e.at(operand, place) for operand in node.operands]
        if node.op.reduces == "argmax":
            with e.block(f"if ({values[0]} > {best} || {best} == {best} && {values[0]} != {values[0]})"):
                e.write(f"{best} = {values[0]};")
                e.write(f"{result} = {place[axes[0]]};")
        else:
            e.combine(node, result, " * ".join(values))
    return result


def first_value(node: Node) -> str:
    """The value of a reduction before its first element."""
    dtype = node.result.type.dtype
    return least(dtype) if node.op.reduces == "max" else constant(0, dtype)


def multiplied(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """matmul of dtypes that the library does not support: integers."""
    a, b = node.operands
    if a.type.shape[-1] == 0:
        return constant(0, node.result.type.dtype)
    total = e.accumulator(node.result.type, constant(0, node.result.type.dtype))
    with e.loops([size_of(a.type.shape[-1])]) as (inner,):
        left = e.at(a, (*broadcast_index(a.type.shape[:-2], index[:-2]), index[-2], inner))
        right = e.at(b, (*broadcast_index(b.type.shape[:-2], index[:-2]), inner, index[-1]))
        e.write(f"{total} += {left} * {right};")
    return total


RULES: dict[str, ElementRule] = {  # windows.py adds its own
    "matmul": multiplied,
    "concat": joined,
    "pad": padded,
    "extent": extent,
    "iota": lambda e, node, index, _: str(index[0]),
    "gather": gathered,
    "scatter_add": scattered,
    "random": drawn,
    **{name: reduced for name, op in OPS.items() if op.reduces},
}


def is_elemental(node: Node) -> bool:
    """Whether each element of the results can be computed separately."""
    name = node.op.name
    if name == "random":
        return node.attributes["distribution"] == "uniform"
    return ELEMENTWISE in node.op.traits or name in FORWARDED or name in RULES
