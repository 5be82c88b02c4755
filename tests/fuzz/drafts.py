"""A graph under construction: the values that can be read, bounds of their magnitude, and operands that fit.

Everything is drawn from one `random.Random`, so that a graph is a function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Any

from compiler.ir.builder import Builder, literal
from compiler.ir.graph import Graph, Literal, Value
from compiler.ir.types import FLOATS, Batch, Dim, Shape, TensorType, TypeRuleError, extent
from compiler.ops import OPS

BATCH = 3  # the largest run-time batch of a generated program
LARGEST = 300  # elements of a tensor at that batch
HIGHEST = 20.0  # the largest magnitude before a value is squashed
DIMENSIONS = (0, *(1,) * 6, *(2,) * 6, *(3,) * 6, 4, 4, 5, 7)
LITERALS = (0.0, 1.0, -1.0, 2.0, 0.5, 0.1, -3.0, 1.5, 0.001)


class Draft:
    """A graph that grows. `limits` holds an upper bound of the magnitude of each float value, for the guards."""

    def __init__(self, random: Random, graph: Graph, variables: bool = False):
        self.random, self.graph, self.builder = random, graph, Builder(graph)
        self.values: list[Value] = []
        self.limits: dict[Value, float] = {}
        self.variables = variables  # whether some inputs may be variables
        self.closed = False  # no new inputs: the body of a scan
        self.rejected = 0

    # Dimensions and types ---------------------------------------------------------------------------------------------

    def dim(self, least: int = 0) -> int:
        return max(least, self.random.choice(DIMENSIONS))

    def shape(self, rank: int | None = None, batch: bool = True) -> Shape:
        """Mostly of rank 1 to 3; the batch is usually the first dimension, and sometimes a multiple of it."""
        rank = self.random.choice((0, 1, 1, 2, 2, 2, 3, 3, 4)) if rank is None else rank
        dims: list[Dim] = [self.dim() for _ in range(rank)]
        if rank and batch and self.random.random() < 0.4:
            at = 0 if self.random.random() < 0.7 else self.random.randrange(rank)
            dims[at] = Batch(2) if self.random.random() < 0.1 else Batch()
        return tuple(dims) if elements(dims) <= LARGEST else self.shape(rank, batch)

    def float_dtype(self) -> str:
        return "f64" if self.random.random() < 0.08 else "f32"

    # Operands ---------------------------------------------------------------------------------------------------------

    def input(self, type: TensorType) -> Value:
        """A new input; in a body, which takes no new ones, a constant of this type."""
        if self.closed:
            return self.constant(type)
        static = not any(isinstance(dim, Batch) for dim in type.shape)
        kind = "param" if self.variables and static and type.is_float and self.random.random() < 0.6 else "input"
        return self.known(self.builder.input(f"x{len(self.graph.inputs)}", type, kind), 2.0)

    def constant(self, type: TensorType) -> Value:
        value = self.random.choice(LITERALS) if type.is_float else 1
        scalar = literal(value, type.dtype)
        return self.emit("broadcast", [scalar], {"shape": type.shape}) if type.shape else scalar

    def known(self, value: Value, limit: float) -> Value:
        self.values.append(value)
        self.limits[value] = limit
        return value

    def limit(self, value: Value) -> float:
        return abs(float(value.value)) if isinstance(value, Literal) else self.limits.get(value, 2.0)

    def some(self, accepts: Callable[[TensorType], bool]) -> Value | None:
        """An accepted value, more often a late one; None if there is none."""
        found = [value for value in self.values if accepts(value.type)]
        if not found:
            return None
        return found[-1 - int(len(found) * self.random.random() ** 1.5)]

    def value(self, accepts: Callable[[TensorType], bool], make: Callable[[], TensorType]) -> Value:
        """An accepted value; if there is none, and sometimes otherwise, a new input."""
        found = self.some(accepts) if self.random.random() < 0.85 else None
        return self.input(make()) if found is None else found

    def floats(self, rank: int | None = None, least: int = 0) -> Value:
        """A float tensor of the given rank, or of any rank of at least `least`."""

        def fits(type: TensorType) -> bool:
            return type.is_float and type.rank >= least and rank in (None, type.rank)

        def make() -> TensorType:
            count = rank if rank is not None else max(least, self.random.choice((0, 1, 2, 2, 3, 4)))
            return TensorType(self.float_dtype(), self.shape(count))

        return self.value(fits, make)

    def of(self, dtypes: Sequence[str], least: int = 0) -> Value:
        """A tensor of any of these dtypes."""

        def make() -> TensorType:
            shape = self.shape()
            return TensorType(self.random.choice(dtypes), shape if len(shape) >= least else self.shape(least))

        return self.value(lambda type: type.dtype in dtypes and type.rank >= least, make)

    def typed(self, type: TensorType) -> Value:
        """A value of exactly this type."""
        return self.value(lambda each: each == type, lambda: type)

    def partner(self, value: Value, numbers: bool = True) -> Value:
        """An operand that broadcasts with a value: of its shape, of a part of it, a larger one, or a number."""
        chance, shape, dtype = self.random.random(), value.type.shape, value.type.dtype
        if numbers and chance < 0.2:
            number = self.random.choice(LITERALS) if value.type.is_float else self.random.choice((0, 1, 2))
            return literal(number, dtype)
        if chance < 0.6:
            return self.typed(value.type)
        if chance < 0.7:
            dims = tuple(self.dim(1) if dim == 1 else dim for dim in shape)
            return self.typed(TensorType(dtype, dims if elements(dims) <= LARGEST else shape))
        dims = tuple(dim if self.random.random() < 0.6 else 1 for dim in shape)
        return self.typed(TensorType(dtype, dims[self.random.randrange(len(dims) + 1) :]))

    # Guards -----------------------------------------------------------------------------------------------------------

    def small(self, value: Value, limit: float = HIGHEST) -> Value:
        """The value, or one computed from it that stays within the limit."""
        if self.limit(value) <= limit:
            return value
        way = self.random.choice(("tanh", "sin", "clip", "mul"))
        if way == "clip":
            return self.emit("clip", [value], {"low": -min(limit, 1.75), "high": min(limit, 2.25)})
        if way == "mul":
            factor = float(f"{min(limit, 2.0) / self.limit(value):.2g}")
            return self.emit("mul", [value, literal(factor, value.type.dtype)], {})
        return self.emit(way, [value], {})

    def positive(self, value: Value) -> Value:
        """A value computed from this one that is at least 0.3: far from the poles of log, div, sqrt and pow."""
        value, dtype = self.small(value, 4.0), value.type.dtype
        way = self.random.choice(("square", "abs", "exp", "max", "clip"))
        if way == "square":
            return self.emit("add", [self.emit("mul", [value, value], {}), literal(0.5, dtype)], {})
        if way == "abs":
            return self.emit("add", [self.emit("abs", [value], {}), literal(0.3, dtype)], {})
        if way == "max":
            return self.emit("max", [value, literal(0.4, dtype)], {})
        if way == "clip":
            return self.emit("clip", [value], {"low": 0.35, "high": inf if self.random.random() < 0.5 else 3.0})
        return self.emit("exp", [self.emit("tanh", [value], {})], {})

    # Nodes ------------------------------------------------------------------------------------------------------------

    def emit(self, name: str, operands: Sequence[Value], attributes: dict[str, Any]) -> Any:
        """Adds a node; raises TypeRuleError if the op's rule refuses it, or a result would be too large."""
        before = len(self.graph.nodes)
        found = self.builder.emit(name, operands, attributes)
        results = self.graph.nodes[before].results
        if any(elements(value.type.shape) > LARGEST for value in results):
            del self.graph.nodes[before:]
            raise TypeRuleError("too large for a fuzzed program")
        for value in results:
            self.known(value, self.estimate(name, operands, value))
        return found

    def estimate(self, name: str, operands: Sequence[Value], result: Value) -> float:
        """An upper bound for the elements of a result, from the bounds of the operands."""
        limits = [self.limit(value) for value in operands] or [elements(result.type.shape) + 1.0]
        if name in BOUNDED:
            return BOUNDED[name]
        if name in ("add", "sub"):
            return sum(limits)
        if name in ("mul", "matmul", "conv2d", "conv2d_input_grad", "conv2d_filter_grad", "sum_of_products"):
            inner = 1 if name == "mul" else max(elements(value.type.shape) for value in operands)
            return limits[0] * limits[-1] * min(inner, 16)
        if name in ("sum", "fold", "scatter_add", "max_pool2d_grad", "max_pool2d_route"):
            return max(limits) * min(16, max(1, elements(operands[0].type.shape)))
        if name in ("exp", "pow", "div", "floor_div"):
            return 60.0
        return max(limits)


BOUNDED = {"tanh": 1.0, "sin": 1.0, "cos": 1.0, "erf": 1.0, "sign": 1.0, "random": 4.0, "orthogonalize": 1.0}
INTEGERS = ("i32", "i64", "u8")
Proposal = Callable[[Draft], Any]  # draws an application of an op
NUMBERS = (*FLOATS, *INTEGERS)
SIGNED = (*FLOATS, "i32", "i64")
assert set(BOUNDED) <= set(OPS)


def elements(shape: Sequence[Dim]) -> int:
    """The number of elements at the largest batch."""
    return extent(shape).at(BATCH)
