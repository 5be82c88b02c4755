"""Equations between terms, written as text and applied as rewrites from left to right: `neg(neg(x)) = x`.

The name of a variable says what it matches; the result is the value of the left side:
    X Y          a tensor of the shape of the result
    s t          smaller than the result, so broadcast to it; all small ones of an equation broadcast together, too
    p q          smaller, and without the batch in its shape: a parameter, or a statistic over the batch
    a b          like p and q, but neither computed from numbers alone nor from each other (`order_is_free`)
    u v          like s and t, and of moderate size (`is_moderate`): its inverse and the product of two cannot overflow
    low high     numbers known at compile time, low < high
    c d          conditions: tensors of bool
    others       anything
A number matches itself, and `name=` before an argument of the right side makes it an attribute. A variable that occurs
twice matches the same value twice. The operands of a commutative op match in either order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compiler.ir.builder import Builder
from compiler.ir.graph import Literal, Node, Value, literal_key
from compiler.ir.op import COMMUTATIVE
from compiler.ir.types import Batch, Shape, broadcast_shapes, extent

TOKENS = re.compile(r"[\w.]+=?|[(),]")
LITERAL = "a literal"
SMALL, BATCHLESS, LIMITS = ("s", "t", "p", "q", "a", "b", "u", "v"), ("p", "q", "a", "b"), ("low", "high")
COMPUTED, MODERATE, CONDITIONS = ("a", "b"), ("u", "v"), ("c", "d")
LEAST, LARGEST = 2.0**-60, 2.0**60  # moderate sizes
MOST_SOURCES = 200  # values that a term is computed from
Bindings = dict[str, Value]


@dataclass(frozen=True, slots=True)
class NumberPattern:
    value: float

    def matches(self, value: Value, bound: Bindings, shape: Shape) -> Iterator[Bindings]:
        if isinstance(value, Literal) and repr(float(value.value)) == repr(self.value):
            yield bound

    def build(self, builder: Builder, bound: Bindings) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class VariablePattern:
    name: str

    def matches(self, value: Value, bound: Bindings, shape: Shape) -> Iterator[Bindings]:
        if self.name in bound:
            if literal_key(bound[self.name]) == literal_key(value):
                yield bound
        elif self.admits(value, shape):
            yield {**bound, self.name: value}

    def admits(self, value: Value, shape: Shape) -> bool:
        if self.name.isupper():
            return value.type.shape == shape
        if self.name in CONDITIONS:
            return value.type.dtype == "bool"
        if self.name in LIMITS:
            return isinstance(value, Literal)
        if self.name in MODERATE and not is_moderate(value):
            return False
        if self.name in BATCHLESS and any(isinstance(dim, Batch) for dim in value.type.shape):
            return False
        return self.name not in SMALL or is_smaller(value.type.shape, shape)

    def build(self, builder: Builder, bound: Bindings) -> Value:
        return bound[self.name]


@dataclass(frozen=True, slots=True)
class TermPattern:
    """An op applied to patterns; attributes occur on right sides only."""

    op: str
    operands: tuple[Pattern, ...]
    attributes: tuple[tuple[str, VariablePattern], ...] = ()

    def matches(self, value: Value, bound: Bindings, shape: Shape) -> Iterator[Bindings]:
        if value.node is not None and value.node.op.name == self.op:
            yield from self.matches_node(value.node, bound, shape)

    def matches_node(self, node: Node, bound: Bindings, shape: Shape) -> Iterator[Bindings]:
        yield from match_all(self.operands, node.operands, bound, shape)
        if COMMUTATIVE in node.op.traits:
            yield from match_all(self.operands, node.operands[::-1], bound, shape)

    def build(self, builder: Builder, bound: Bindings) -> Value:
        attributes = {name: bound[variable.name].value for name, variable in self.attributes}  # type: ignore
        return builder.emit(self.op, [operand.build(builder, bound) for operand in self.operands], attributes)


Pattern = NumberPattern | VariablePattern | TermPattern
NAMED = {"true": NumberPattern(1.0), "false": NumberPattern(0.0)}


def match_all(
    patterns: Sequence[Pattern], values: Sequence[Value], bound: Bindings, shape: Shape
) -> Iterator[Bindings]:
    """All ways to match each pattern with the value at its position."""
    if not patterns:
        yield bound
        return
    for extended in patterns[0].matches(values[0], bound, shape):
        yield from match_all(patterns[1:], values[1:], extended, shape)


@dataclass(frozen=True, slots=True)
class Equation:
    """See the file's docstring."""

    text: str
    left: TermPattern
    right: Pattern
    needs: frozenset[str]  # must all be among the makers of the operands of a node it matches

    def rewrite(self, builder: Builder, node: Node) -> Value | None:
        """The right side, if the node matches the left side."""
        shape = node.result.type.shape
        for bound in self.left.matches_node(node, {}, shape):
            if limits_ascend(bound) and smaller_together(bound, shape) and order_is_free(bound):
                return stretched(builder, self.right.build(builder, bound), shape)
        return None


def limits_ascend(bound: Bindings) -> bool:
    if "low" not in bound:
        return True
    low, high = bound["low"], bound["high"]
    assert isinstance(low, Literal) and isinstance(high, Literal)
    return low.value < high.value


def order_is_free(bound: Bindings) -> bool:
    return COMPUTED[0] not in bound or are_independent([bound[name] for name in COMPUTED if name in bound])


def are_independent(terms: Sequence[Value]) -> bool:
    """Whether terms may be added in another order: not if that could undo a rounding that is meant.

    `x + 12582912 - 12582912` rounds x to a whole number, and so does `x + c - c` for any large c. So no term may be
    computed from numbers alone, and two may share a source only if one is a statistic of the batch and the other is
    not, such as the mean after a bias was added, and that bias.
    """
    sources = [sources_of(term) for term in terms]
    if not all(sources):
        return False
    statistics = [{value for value in found if value.node is not None} for found in sources]
    return len(terms) < 2 or sources[0].isdisjoint(sources[1]) or bool(statistics[0]) != bool(statistics[1])


def sources_of(value: Value) -> set[Value]:
    """The variables and sums over the batch that a value without the batch is computed from; none if from too many."""
    found: set[Value] = set()
    seen: set[Value] = set()
    pending = [value]
    while pending:
        value = pending.pop()
        if value in seen or isinstance(value, Literal):
            continue
        seen.add(value)
        operands = value.node.operands if value.node else ()
        if len(seen) > MOST_SOURCES:
            return set()
        if value.node is None or any(isinstance(dim, Batch) for each in operands for dim in each.type.shape):
            found.add(value)
        pending += () if value in found else operands
    return found


def is_moderate(value: Value) -> bool:
    """Whether every element is surely between LEAST and LARGEST in size, or is a root, or 1 / such a root.

    Roots of numbers other than 0 are from 1e-23 to 2e19 in f32; those of y + eps, if not 0, are at least 1e-13, since
    y + eps is a multiple of eps / 2^25. For a root of 0, x / 0 = x * (1 / 0).
    """
    if isinstance(value, Literal):
        return LEAST <= abs(value.value) <= LARGEST
    if value.node is None:
        return False
    name, operands = value.node.op.name, value.node.operands
    if name == "sqrt":
        return value.type.dtype == "f32"
    if name == "div":
        one = isinstance(operands[0], Literal) and abs(operands[0].value) == 1.0
        return one and is_moderate(operands[1]) and not is_bare_root(operands[1])
    if name == "add":  # of a root and a positive number
        number, root = operands if isinstance(operands[0], Literal) else operands[::-1]
        positive = isinstance(number, Literal) and LEAST <= number.value <= LARGEST
        return positive and root.node is not None and root.node.op.name == "sqrt" and is_moderate(root)
    return name == "extent" or (name in ("neg", "broadcast", "reshape", "cast") and is_moderate(operands[0]))


def is_bare_root(value: Value) -> bool:
    """Whether a value is the root of anything, so that the product of two inverses could overflow."""
    if value.node is None or value.node.op.name != "sqrt":
        return False
    inside = value.node.operands[0]
    numbers = [each for each in inside.node.operands if isinstance(each, Literal)] if inside.node else []
    return not (inside.node and inside.node.op.name == "add" and any(each.value >= LEAST for each in numbers))


def smaller_together(bound: Bindings, shape: Shape) -> bool:
    """Whether the small operands broadcast together are still small: [B,1] and [C] are not."""
    small = [value.type.shape for name, value in bound.items() if name in SMALL]
    return len(small) < 2 or is_smaller(broadcast_shapes(*small), shape)


def is_smaller(shape: Shape, result: Shape) -> bool:
    """Whether a shape that broadcasts to that of the result has fewer elements."""
    return shape != result and extent(shape) != extent(result)


def stretched(builder: Builder, value: Value | float, shape: Shape) -> Value:
    assert isinstance(value, Value)
    return value if value.type.shape == shape else builder.broadcast(value, shape=shape)


def equation(text: str) -> Equation:
    """Reads `left = right`."""
    left, right = (read_pattern(TOKENS.findall(side)) for side in text.split(" = "))
    assert isinstance(left, TermPattern)
    return Equation(text, left, right, frozenset(map(needed, left.operands)) - {""})


def needed(pattern: Pattern) -> str:
    """The op that must compute an operand, or LITERAL, or empty for any."""
    if isinstance(pattern, VariablePattern):
        return LITERAL if pattern.name in LIMITS else ""
    return LITERAL if isinstance(pattern, NumberPattern) else pattern.op


def makers(node: Node) -> set[str]:
    """What computes the operands of a node: ops, LITERAL, or empty for inputs."""
    return {v.node.op.name if v.node else LITERAL if isinstance(v, Literal) else "" for v in node.operands}


def read_pattern(tokens: list[str]) -> Pattern:
    """Takes one pattern off the front of the tokens."""
    word = tokens.pop(0)
    if not tokens or tokens[0] != "(":
        return NAMED.get(word) or (NumberPattern(float(word)) if word[0].isdigit() else VariablePattern(word))
    operands: list[Pattern] = []
    attributes: list[tuple[str, VariablePattern]] = []
    while tokens.pop(0) != ")":
        if tokens[0].endswith("="):
            attributes.append((tokens.pop(0)[:-1], VariablePattern(tokens.pop(0))))
        else:
            operands.append(read_pattern(tokens))
    return TermPattern(word, tuple(operands), tuple(attributes))
