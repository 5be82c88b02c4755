"""Sums of what is linear in large tensors, for `simplify`: the sums stay, the arithmetic moves to their results.

    sum(neg(X))       = neg(sum(X))
    sum(mul(X, s))    = mul(sum(X), s)                 s: the same all along the summed axes, and smaller than X
    sum(add(X, p))    = add(sum(X), mul(p, count))     p: such an s without the batch; the same for sub
    sum(broadcast(s)) = mul(s, count)
    sum(add(X, Y))    = add(sum(X), sum(Y))            where both sums are there already, or follow from such

X and Y have the shape of what is summed. Of the gradient of a batch normalization remain the sums of dy and dy * x.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.builder import Builder
from compiler.ir.graph import Value
from compiler.ir.types import Batch, Shape
from compiler.passes.equations import is_smaller, stretched

LINEAR = ("neg", "mul", "add", "sub", "broadcast")


@dataclass(frozen=True, slots=True)
class Reduction:
    """What is summed: along which axes of a shape."""

    shape: Shape
    axes: tuple[int, ...]
    keepdims: bool

    def is_constant(self, value: Value) -> bool:
        """Whether a value, stretched to the shape, is the same all along the axes."""
        return is_smaller(value.type.shape, self.shape) and all(aligned(value, self.shape)[i] == 1 for i in self.axes)

    def result(self, shape: Shape) -> Shape:
        """What a shape of as many axes becomes."""
        if self.keepdims:
            return tuple(1 if axis in self.axes else dim for axis, dim in enumerate(shape))
        return tuple(dim for axis, dim in enumerate(shape) if axis not in self.axes)

    def is_offset(self, value: Value) -> bool:
        return self.is_constant(value) and not any(isinstance(dim, Batch) for dim in value.type.shape)


def aligned(value: Value, shape: Shape) -> Shape:
    """The shape of a value with axes of 1 in front, so that it has as many as another."""
    return (1,) * (len(shape) - value.type.rank) + value.type.shape


def large_terms(x: Value, over: Reduction) -> list[Value] | None:
    """The tensors of the full shape that the sum of x follows from, if x is linear in them."""
    if x.node is None or x.node.op.name not in LINEAR or not x.type.is_float:
        return None
    large = [operand for operand in x.node.operands if operand.type.shape == over.shape]
    small = [operand for operand in x.node.operands if operand.type.shape != over.shape]
    fits = over.is_offset if x.node.op.name in ("add", "sub") else over.is_constant
    return large if all(map(fits, small)) and not (x.node.op.name == "mul" and len(large) > 1) else None


class Sums:
    """The sums of one graph while it is built anew: each is computed once."""

    def __init__(self, builder: Builder):
        self.builder = builder
        self.known: dict[tuple[Value, Reduction], Value] = {}
        self.at_hand: set[tuple[Value, Reduction]] = set()

    def total(self, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        """The sum of x by the equations; what it follows from is summed first."""
        over = Reduction(x.type.shape, axes, keepdims)
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

    def terms(self, x: Value, over: Reduction) -> list[Value] | None:
        """What the sum of x follows from; None where it must be computed."""
        terms = None if (x, over) in self.known else large_terms(x, over)
        return terms if terms is None or len(terms) < 2 or all(self.is_at_hand(t, over) for t in terms) else None

    def is_at_hand(self, x: Value, over: Reduction) -> bool:
        """Whether a sum is in the graph, or follows from sums that are."""
        pending, found = [x], set()
        while pending:
            key = (pending.pop(), over)
            if key not in self.known and key not in self.at_hand and key not in found:
                terms = large_terms(*key)
                if terms is None:
                    return False
                found.add(key)
                pending += terms
        self.at_hand |= found
        return True

    def plain(self, x: Value, over: Reduction) -> Value:
        known = self.known.get((x, over))
        return known or Builder.emit(self.builder, "sum", [x], {"axes": over.axes, "keepdims": over.keepdims})

    def moved(self, x: Value, over: Reduction) -> Value:
        """The sum of x from the sums of its large terms."""
        assert x.node is not None
        name = x.node.op.name
        parts = [self.part(operand, over, counted=name != "mul") for operand in x.node.operands]
        value = parts[0] if name == "broadcast" else self.builder.emit(name, parts, {})
        return stretched(self.builder, value, over.result(over.shape))

    def part(self, operand: Value, over: Reduction, counted: bool) -> Value:
        """The sum of an operand; a small factor is not summed, but only brought to the shape of the result."""
        if operand.type.shape == over.shape:
            return self.known[operand, over]
        shape = over.result(aligned(operand, over.shape))
        shape = shape[next((axis for axis, dim in enumerate(shape) if dim != 1), len(shape)) :]
        small = self.builder.reshape(operand, shape=shape)
        return self.builder.mul(small, self.count(over, small.type.dtype)) if counted else small

    def count(self, over: Reduction, dtype: str) -> Value | int:
        """How many elements are summed to one."""
        count = self.builder.count([over.shape[axis] for axis in over.axes])
        return self.builder.cast(count, dtype=dtype) if isinstance(count, Value) else count
