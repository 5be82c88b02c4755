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
    "select(true, x, y) = x",
    "select(false, x, y) = y",
    "select(c, x, x) = x",
    "select(c, select(d, x, z), z) = select(and(c, d), x, z)",  # the gradient of a clip
    "lt(max(x, low), high) = lt(x, high)",  # also the condition for min(max(x, low), high), which then needs only x
    "lt(low, min(x, high)) = lt(low, x)",
)

# For floats: combine numbers first, then vectors, so that each large tensor is read once.
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
    "div(X, s) = mul(X, div(1, s))",
    "mul(mul(X, s), t) = mul(X, mul(s, t))",
    "mul(div(s, X), t) = div(mul(s, t), X)",
    "add(X, X) = mul(X, 2)",
    "add(add(X, Y), Y) = add(X, mul(Y, 2))",
    # terms without the batch: log_softmax must stay (x - max) - log(sum), or it would lose the digits of small losses
    "add(add(X, p), q) = add(X, add(p, q))",
    "add(sub(X, p), q) = add(X, sub(q, p))",
    "add(sub(p, X), q) = sub(add(p, q), X)",
    "sub(add(X, p), q) = add(X, sub(p, q))",
    "sub(sub(X, p), q) = sub(X, add(p, q))",
    "sub(sub(p, X), q) = sub(sub(p, q), X)",
    "sub(q, add(X, p)) = sub(sub(q, p), X)",
    "sub(q, sub(X, p)) = sub(add(q, p), X)",
    "sub(q, sub(p, X)) = add(X, sub(q, p))",
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
