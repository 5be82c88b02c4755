"""Arithmetic and logic as equations, for `simplify`. Their notation: `equations.py`."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Node, Value
from compiler.passes.equations import Equation, equation, makers

# For tensors of every dtype.
ALWAYS = (
    "add(x, 0) = x",
    "sub(x, 0) = x",
    "mul(x, 1) = x",
    "neg(neg(x)) = x",
    "not(not(c)) = c",
    "lt(0, cast(c)) = c",
    "select(true, x, y) = x",
    "select(false, x, y) = y",
    "select(c, x, x) = x",
    "select(c, select(d, x, z), z) = select(and(c, d), x, z)",  # the gradient of a clip
    "lt(max(x, low), high) = lt(x, high)",  # also the condition for min(max(x, low), high), which then needs only x
    "lt(low, min(x, high)) = lt(low, x)",
)

# For floats: combine numbers first, then vectors, so that each large tensor is read once. docs/arithmetic.md lists what
# may change. Equations whose right side could overflow where the left does not need u and v: see `equations.py`.
FLOATS = (
    "div(x, 1) = x",
    "pow(x, 1) = x",
    "pow(x, 2) = mul(x, x)",
    "pow(x, 0.5) = sqrt(x)",
    "min(max(x, low), high) = clip(x, low=low, high=high)",
    "max(min(x, high), low) = clip(x, low=low, high=high)",
    # negation
    "sub(0, x) = neg(x)",
    "add(x, neg(y)) = sub(x, y)",
    "sub(x, neg(y)) = add(x, y)",
    "neg(sub(x, y)) = sub(y, x)",
    "neg(add(X, p)) = sub(neg(p), X)",
    "sub(neg(X), p) = sub(neg(p), X)",
    "neg(mul(X, s)) = mul(X, neg(s))",
    "mul(neg(X), s) = mul(X, neg(s))",
    "neg(div(s, X)) = div(neg(s), X)",
    # factors
    "div(X, u) = mul(X, div(1, u))",
    "mul(mul(X, u), v) = mul(X, mul(u, v))",
    "mul(div(u, X), v) = div(mul(u, v), X)",
    "add(X, X) = mul(X, 2)",
    # terms without the batch: log_softmax must stay (x - max) - log(sum), or it would lose the digits of small losses
    "add(add(X, a), b) = add(X, add(a, b))",
    "add(sub(X, a), b) = add(X, sub(b, a))",
    "add(sub(a, X), b) = sub(add(a, b), X)",
    "sub(add(X, a), b) = add(X, sub(a, b))",
    "sub(sub(X, a), b) = sub(X, add(a, b))",
    "sub(sub(a, X), b) = sub(sub(a, b), X)",
    "sub(b, add(X, a)) = sub(sub(b, a), X)",
    "sub(b, sub(X, a)) = sub(add(b, a), X)",
    "sub(b, sub(a, X)) = add(X, sub(b, a))",
)


def by_op(texts: Sequence[str]) -> dict[str, tuple[Equation, ...]]:
    """The equations by the op of their left side."""
    equations = [equation(text) for text in texts]
    return {op: tuple(e for e in equations if e.left.op == op) for op in {e.left.op for e in equations}}


# By the dtype of an op's operands: whether it is a float.
EQUATIONS = {False: by_op(ALWAYS), True: by_op(ALWAYS + FLOATS)}


def by_equations(builder: Builder, node: Node) -> Value | None:
    """The right side of the first equation that matches a node."""
    made = makers(node)
    for each in EQUATIONS[node.operands[-1].type.is_float].get(node.op.name, ()):
        if each.needs <= made and (value := each.rewrite(builder, node)) is not None:
            return value
    return None
