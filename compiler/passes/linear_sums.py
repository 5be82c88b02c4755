"""Sums of expressions linear in large tensors, for `simplify`: the sums stay, the arithmetic moves to their results.

    sum(neg(X))       = neg(sum(X))
    sum(mul(X, s))    = mul(sum(X), s)                 s: constant along the summed axes, and smaller than X; outside of
                                                       gradients a number from 1 to 2^60, so that sum(X) is no larger
    sum(add(X, a))    = add(sum(X), mul(a, count))     a: such an s without the batch, not computed from numbers alone,
                                                       nor from terms that X adds; likewise for sub
    sum(broadcast(s)) = mul(s, count)
    sum(add(X, Y))    = add(sum(X), sum(Y))            in gradients, if both sums exist, or follow from existing ones

X and Y have the shape of the summed tensor. What remains of the gradient of batch normalization is the sums of dy and
dy * x.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.builder import Builder
from compiler.ir.graph import Literal, Value
from compiler.ir.types import Batch, Shape
from compiler.passes.equations import LARGEST, are_independent, is_moderate, is_smaller, stretched

LINEAR = ("neg", "mul", "add", "sub", "broadcast")


@dataclass(frozen=True, slots=True)
class Summation:
    """A sum along some axes of tensors of a shape."""

    shape: Shape
    axes: tuple[int, ...]
    keepdims: bool

    def is_constant(self, value: Value) -> bool:
        """Whether a value, broadcast to the shape, is constant along the axes."""
        return is_smaller(value.type.shape, self.shape) and all(aligned(value, self.shape)[i] == 1 for i in self.axes)

    def result(self, shape: Shape) -> Shape:
        """The shape of the sum of a tensor of this shape."""
        if self.keepdims:
            return tuple(1 if axis in self.axes else dim for axis, dim in enumerate(shape))
        return tuple(dim for axis, dim in enumerate(shape) if axis not in self.axes)

    def is_offset(self, value: Value) -> bool:
        return self.is_constant(value) and not any(isinstance(dim, Batch) for dim in value.type.shape)


def aligned(value: Value, shape: Shape) -> Shape:
    """The shape of a value with leading axes of 1, so that it has as many axes as another."""
    return (1,) * (len(shape) - value.type.rank) + value.type.shape


def large_terms(x: Value, over: Summation, gradient: bool) -> list[Value] | None:
    """The tensors of the full shape whose sums give the sum of x, if x is linear in them.

    The sums of a `gradient` have no written order.
    """
    if x.node is None or x.node.op.name not in LINEAR or not x.type.is_float:
        return None
    name = x.node.op.name
    large = [operand for operand in x.node.operands if operand.type.shape == over.shape]
    small = [operand for operand in x.node.operands if operand.type.shape != over.shape]
    if len(large) > 1 and (name == "mul" or not gradient):
        return None
    if not all(map(over.is_offset if name in ("add", "sub") else over.is_constant, small)):
        return None
    if name in ("add", "sub"):
        return large if all(may_be_moved(each, large[0], over) for each in small) else None
    return large if name != "mul" or all(is_safe(each, gradient) for each in small) else None


def is_safe(factor: Value, gradient: bool) -> bool:
    """Whether a sum without the factor overflows only if the one with it does, as far as that matters."""
    if isinstance(factor, Literal):
        return is_moderate(factor) if gradient else 1 <= abs(factor.value) <= LARGEST
    return gradient


def may_be_moved(term: Value, x: Value, over: Summation) -> bool:
    """Whether a small term that is added to x may be added to the sum of x instead; not if it may serve to round x."""
    return are_independent([term]) and all(are_independent([term, other]) for other in offsets_in(x, over))


def offsets_in(x: Value, over: Summation) -> list[Value]:
    """The small terms that a large tensor has been computed with, of as many sums in a row as there are."""
    found: list[Value] = []
    while x.node is not None and x.node.op.name in LINEAR and x.type.shape == over.shape:
        if x.node.op.name in ("add", "sub"):
            found += [operand for operand in x.node.operands if operand.type.shape != over.shape]
        x = next((operand for operand in x.node.operands if operand.type.shape == over.shape), x.node.operands[0])
    return found


class Sums:
    """The sums of one graph while it is rebuilt: each is computed once."""

    def __init__(self, builder: Builder):
        self.builder = builder
        self.gradient = False  # whether the present sum belongs to a gradient
        self.known: dict[tuple[Value, Summation], Value] = {}
        self.available: set[tuple[Value, Summation]] = set()

    def total(self, x: Value, axes: tuple[int, ...], keepdims: bool, gradient: bool) -> Value:
        """The sum of x by the equations; the sums it follows from come first."""
        self.gradient = gradient
        over = Summation(x.type.shape, axes, keepdims)
        pending = [x] if axes else []
        while pending:
            value = pending[-1]
            terms = self.terms(value, over)
            missing = [term for term in terms or () if (term, over) not in self.known]
            pending += missing
            if not missing:
                pending.pop()
                self.known[value, over] = self.plain(value, over) if terms is None else self.moved(value, over)
        return self.known[x, over] if axes else x

    def terms(self, x: Value, over: Summation) -> list[Value] | None:
        """The tensors whose sums give the sum of x; None if it must be computed."""
        terms = None if (x, over) in self.known else large_terms(x, over, self.gradient)
        return terms if terms is None or len(terms) < 2 or all(self.is_available(t, over) for t in terms) else None

    def is_available(self, x: Value, over: Summation) -> bool:
        """Whether a sum is in the graph, or follows from sums in the graph."""
        pending, found = [x], set()
        while pending:
            key = (pending.pop(), over)
            if key not in self.known and key not in self.available and key not in found:
                terms = large_terms(*key, self.gradient)
                if terms is None:
                    return False
                found.add(key)
                pending += terms
        self.available |= found
        return True

    def plain(self, x: Value, over: Summation) -> Value:
        known = self.known.get((x, over))
        return known or Builder.emit(self.builder, "sum", [x], {"axes": over.axes, "keepdims": over.keepdims})

    def moved(self, x: Value, over: Summation) -> Value:
        """The sum of x from the sums of its large terms."""
        assert x.node is not None
        name = x.node.op.name
        parts = [self.part(operand, over, counted=name != "mul") for operand in x.node.operands]
        value = parts[0] if name == "broadcast" else self.builder.emit(name, parts, {})
        return stretched(self.builder, value, over.result(over.shape))

    def part(self, operand: Value, over: Summation, counted: bool) -> Value:
        """The sum of an operand; a small factor is not summed, only reshaped to the shape of the result."""
        if operand.type.shape == over.shape:
            return self.known[operand, over]
        shape = over.result(aligned(operand, over.shape))
        shape = shape[next((axis for axis, dim in enumerate(shape) if dim != 1), len(shape)) :]
        small = self.builder.reshape(operand, shape=shape)
        return self.builder.mul(small, self.count(over, small.type.dtype)) if counted else small

    def count(self, over: Summation, dtype: str) -> Value | int:
        """The number of elements that are summed to one."""
        count = self.builder.count([over.shape[axis] for axis in over.axes])
        return self.builder.cast(count, dtype=dtype) if isinstance(count, Value) else count
