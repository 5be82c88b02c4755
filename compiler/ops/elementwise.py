"""Elementwise primitives: arithmetic, comparisons, logic, `select` and `cast`, all with NumPy broadcasting.

Gradients have the shape of the result; autodiff sums them back to that of the operand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import (
    COMMUTATIVE,
    ELEMENTWISE,
    IN_ORDER,
    REQUIRED,
    VIEW,
    Op,
    Sample,
    TypeRule,
    error,
    expect_count,
    sample,
)
from compiler.ir.types import DTYPES, FLOATS, NUMPY_NAMES, TensorType, TypeRuleError, broadcast_shapes
from compiler.ops.rules import NUMBERS, SIGNED, equation, expect_dtype, expect_same_dtype, no_operations, zero_gradient

PLAIN = frozenset({ELEMENTWISE})
SYMMETRIC = frozenset({ELEMENTWISE, COMMUTATIVE})


def unary_rule(dtypes: Sequence[str]) -> TypeRule:
    def infer(types: Sequence[TensorType]) -> TensorType:
        expect_count(types, 1)
        expect_dtype(types[0], dtypes)
        return types[0]

    return infer


def binary_rule(dtypes: Sequence[str], result: str | None) -> TypeRule:
    """Operands of one dtype from `dtypes`; the result has the same dtype unless `result` names another."""

    def infer(types: Sequence[TensorType]) -> TensorType:
        expect_count(types, 2)
        expect_same_dtype(types)
        expect_dtype(types[0], dtypes)
        return TensorType(result or types[0].dtype, broadcast_shapes(*(type.shape for type in types)))

    return infer


def infer_select(types: Sequence[TensorType]) -> TensorType:
    expect_count(types, 3)
    expect_dtype(types[0], ("bool",), "the condition")
    expect_same_dtype(types[1:])
    return TensorType(types[1].dtype, broadcast_shapes(*(type.shape for type in types)))


def infer_clip(types: Sequence[TensorType], low: float, high: float) -> TensorType:
    expect_count(types, 1)
    expect_dtype(types[0], FLOATS)
    if any(isinstance(limit, bool) or not isinstance(limit, int | float) for limit in (low, high)) or not low <= high:
        raise TypeRuleError("the limits of a clip are not valid", "two numbers, low <= high", f"{low} and {high}")
    return types[0]


def infer_cast(types: Sequence[TensorType], dtype: str) -> TensorType:
    expect_count(types, 1)
    if dtype not in DTYPES:
        raise TypeRuleError("unknown dtype", ", ".join(DTYPES), str(dtype))
    return types[0].with_dtype(dtype)


def divided(builder: Builder, dy: Value, condition: Value) -> list[Value | None]:
    """dy to the first of two operands where the condition holds, to the second elsewhere."""
    return [builder.select(condition, dy, 0.0), builder.select(condition, 0.0, dy)]


def clip_gradient(builder: Builder, node: Node, dy: Value) -> list[Value | None]:
    """dy where the result is strictly between the limits, else 0: this does not need x."""
    y, low, high = node.result, node.attributes["low"], node.attributes["high"]
    return [builder.select(builder.emit("and", (builder.lt(low, y), builder.lt(y, high)), {}), dy, 0.0)]


def max_gradient(builder: Builder, dz: Value, z: Value, x: Value, y: Value) -> list[Value | None]:
    """To the larger operand, of equal ones to the second: relu'(0) = 0 for max(x, 0), where z > 0 tests the same."""
    return divided(builder, dz, builder.lt(y, z if isinstance(y, Literal) else x))


def min_gradient(builder: Builder, dz: Value, z: Value, x: Value, y: Value) -> list[Value | None]:
    return divided(builder, dz, builder.lt(z if isinstance(y, Literal) else x, y))


def pow_base(builder: Builder, dz: Value, x: Value, y: Value) -> Value | None:
    """dz * y * x**(y - 1), and 0 where y is 0, even at x = 0."""
    if isinstance(y, Literal):
        return builder.mul(dz, builder.mul(y, builder.pow(x, y.value - 1.0))) if y.value else None
    below = builder.select(builder.eq(y, 0.0), 1.0, builder.sub(y, 1.0))
    return builder.mul(dz, builder.mul(y, builder.pow(x, below)))


def pow_exponent(builder: Builder, dz: Value, z: Value, x: Value, y: Value) -> Value | None:
    """dz * log(x) * x**y where x is positive, 0 elsewhere: there x**y is not differentiable in y."""
    if isinstance(y, Literal):
        return None
    positive = builder.lt(0.0, x)
    return builder.mul(dz, builder.mul(z, builder.select(positive, builder.log(builder.select(positive, x, 1.0)), 0.0)))


def without_warnings(function: Callable[..., Any]) -> Callable[..., Any]:
    """A NumPy function that says nothing about whole numbers divided by zero."""
    return np.errstate(all="ignore")(lambda *operands: function(*operands))


def bell(builder: Builder, x: Value, factor: float) -> Value:
    """exp(-factor x²), for a factor of 1/2 or 1.

    With h, x rounded down to a sixteenth, h² is exact, and x² = h² + (x - h) (x + h); the exponential of the rounded x²
    would lose as many digits as x² has before the point. Beyond 40 the result is zero.
    """
    x = builder.clip(x, low=-40.0, high=40.0)
    h = builder.mul(builder.floor(builder.mul(x, 16.0)), 1.0 / 16.0)
    rest = builder.mul(builder.sub(x, h), builder.add(x, h))
    return builder.mul(builder.exp(builder.mul(builder.mul(h, h), -factor)), builder.exp(builder.mul(rest, -factor)))


def sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


def binary_samples(left: str = "-2..2", right: str = "-2..2") -> tuple[Sample, ...]:
    """Operands that broadcast in every way, with values in the two ranges."""
    pairs = (
        ("f32[]", "f32[]"), ("f32[3]", "f32[3]"), ("f32[2,3]", "f32[3]"), ("f32[3]", "f32[2,1]"), ("f64[1]", "f64[2]"),
        ("f32[4,1]", "f32[1,3]"), ("f32[2,3]", "f32[]"), ("f32[]", "f32[B,2]"), ("f32[B,1,3]", "f32[2,1]"),
        ("f32[1]", "f32[2*B]"), ("f32[0,3]", "f32[1,3]"), ("f32[0]", "f32[1]"),
    )  # fmt: skip
    return tuple(sample(f"{a} {left}", f"{b} {right}") for a, b in pairs)


FLOATS_ONLY = (error("dtype", "i32[3]"), error("dtype", "bool[]"), error("operands", "f32[]", "f32[]"))
BINARY_ERRORS = (
    error("broadcast", "f32[3]", "f32[4]"), error("broadcast", "f32[B,2]", "f32[3,2]"), error("operands", "f32[3]"),
    error("differ in dtype", "f32[3]", "f64[3]"), error("differ in dtype", "f32[3]", "i32[3]"),
)  # fmt: skip
NO_BOOL = (*BINARY_ERRORS, error("dtype", "bool[2]", "bool[2]"))
BINARY_FLOATS_ONLY = (*NO_BOOL, error("dtype", "i32[2]", "i32[2]"))
BOOLS_ONLY = (
    error("broadcast", "bool[3]", "bool[4]"), error("operands", "bool[3]"), error("dtype", "f32[3]", "f32[3]"),
    error("differ in dtype", "bool[3]", "i32[3]"),
)  # fmt: skip
INTEGER_PAIRS = (sample("i32[2,1]", "i32[3]"), sample("i64[]", "i64[B]"), sample("u8[2]", "u8[2]"))
BOOL_PAIRS = (sample("bool[]", "bool[3]"), sample("bool[B,2]", "bool[2]"), sample("bool[0]", "bool[1]"))
NUMBER_PAIRS = binary_samples() + INTEGER_PAIRS
# Whole numbers draw zeros among their divisors.
QUOTIENTS = binary_samples("-9..9", "0.5..2") + binary_samples("-9..9", "-3..-1") + INTEGER_PAIRS

# Keywords of `unary` and `binary` for dtypes other than the usual ones
EXCEPT_BOOL: dict[str, Any] = {"dtypes": NUMBERS, "more": ("i32[3]", "u8[2]"), "errors": FLOATS_ONLY[1:]}
ANY: dict[str, Any] = {"dtypes": DTYPES, "more": ("i32[3]", "bool[2]"), "errors": FLOATS_ONLY[2:]}
BOOLS: dict[str, Any] = {"dtypes": ("bool",), "samples": BOOL_PAIRS, "errors": BOOLS_ONLY}


def unary(
    name: str,
    reference: Callable[..., Any],
    gradient: Callable[..., Value | None] = lambda *_: None,
    *,
    dtypes: Sequence[str] = FLOATS,
    traits: frozenset[str] = PLAIN,
    values: str = "-2..2",
    more: Sequence[str] = (),
    errors: tuple[Sample, ...] = FLOATS_ONLY,
    **facts: Any,
) -> Op:
    """An op of one operand, whose type the result has: gradient(builder, dy, y, x) -> dx, or None (zero).

    The samples are operands of every rank with values in the range, and `more` operands, complete.
    """
    types = ("f32[]", "f32[1]", "f32[5]", "f64[2,3]", "f32[B,3]", "f32[2,1,2*B]", "f32[0,2]")
    return Op(
        name,
        infer=unary_rule(dtypes),
        gradient=equation(lambda *rest: [gradient(*rest)]),
        reference=reference,
        traits=traits,
        samples=tuple(map(sample, (*(f"{type} {values}" for type in types), *more))),
        errors=errors,
        **facts,
    )


def binary(
    name: str,
    reference: Callable[..., Any],
    gradient: Callable[..., list[Value | None]] = lambda *_: [None, None],
    *,
    dtypes: Sequence[str] = NUMBERS,
    result: str | None = None,
    traits: frozenset[str] = PLAIN,
    samples: tuple[Sample, ...] = NUMBER_PAIRS,
    errors: tuple[Sample, ...] = NO_BOOL,
) -> Op:
    """An op of two operands that broadcast: gradient(builder, dz, z, x, y) -> [dx, dy], zero by default."""
    return Op(
        name,
        infer=binary_rule(dtypes, result),
        gradient=equation(gradient),
        reference=reference,
        traits=traits,
        samples=samples,
        errors=errors,
    )


ARITHMETIC = (
    binary("add", np.add, lambda builder, dz, z, x, y: [dz, dz], traits=SYMMETRIC),
    binary("sub", np.subtract, lambda builder, dz, z, x, y: [dz, builder.neg(dz)]),
    binary(
        "mul",
        np.multiply,
        lambda builder, dz, z, x, y: [builder.mul(dz, y), builder.mul(dz, x)],
        traits=SYMMETRIC,
    ),
    binary(
        "div",
        np.divide,
        lambda builder, dz, z, x, y: [dx := builder.div(dz, y), builder.neg(builder.mul(dx, z))],
        dtypes=FLOATS,
        samples=binary_samples("-2..2", "0.5..2") + binary_samples("-2..2", "-3..-1"),
        errors=BINARY_FLOATS_ONLY,
    ),
    binary(
        "floor_div",  # the quotient rounded down; of whole numbers by 0, it is 0
        without_warnings(np.floor_divide),
        samples=QUOTIENTS,
    ),
    binary(
        "mod",  # x - y * floor_div(x, y), without rounding the product; of whole numbers by 0, it is 0
        without_warnings(np.remainder),
        lambda builder, dz, z, x, y: [dz, builder.neg(builder.mul(dz, builder.floor_div(x, y)))],
        samples=QUOTIENTS,
    ),
    binary(
        "pow",
        np.power,
        lambda builder, dz, z, x, y: [pow_base(builder, dz, x, y), pow_exponent(builder, dz, z, x, y)],
        dtypes=FLOATS,
        samples=binary_samples("0.5..2", "-2..2"),
        errors=BINARY_FLOATS_ONLY,
    ),
    binary("max", np.maximum, max_gradient, traits=SYMMETRIC),
    binary("min", np.minimum, min_gradient, traits=SYMMETRIC),
    Op(
        "clip",  # min(max(x, low), high); a limit may be infinite
        infer=infer_clip,
        gradient=clip_gradient,
        reference=lambda x, low, high: np.clip(x, low, high),
        attributes={"low": REQUIRED, "high": REQUIRED},
        traits=PLAIN,
        samples=tuple(
            sample(f"{type} -2..2", low=low, high=high)
            for type, low, high in (
                ("f32[]", -0.5, 0.5),
                ("f32[1]", 0.25, 1.5),
                ("f32[5]", -1.0, 0.5),
                ("f64[2,3]", 0.0, 1.0),
                ("f32[B,3]", float("-inf"), 0.75),
                ("f32[2,1,2*B]", -0.75, float("inf")),
                ("f32[0,2]", 0.0, 6.0),
                ("f32[4]", 0.5, 0.5),
            )
        ),
        errors=(
            error("limits of a clip", "f32[3]", low=1.0, high=0.0),
            error("limits of a clip", "f32[3]", low=float("nan"), high=0.0),
            error("limits of a clip", "f32[3]", low=0.0, high="1"),
            error("dtype", "i32[3]", low=0.0, high=1.0),
            error("operands", "f32[]", "f32[]", low=0.0, high=1.0),
            error("needs", "f32[3]", low=0.0),
        ),
    ),
    unary(
        "neg",
        np.negative,
        lambda builder, dy, y, x: builder.neg(dy),
        dtypes=SIGNED,
        more=("i32[3]", "i64[]"),
        errors=(error("dtype", "u8[3]"), *FLOATS_ONLY[1:]),
    ),
    unary("abs", np.abs, lambda builder, dy, y, x: builder.mul(dy, builder.sign(x)), on_number=abs, **EXCEPT_BOOL),
    unary("sign", np.sign, on_number=lambda x: (x > 0) - (x < 0), **EXCEPT_BOOL),
    unary("floor", np.floor, on_number=math.floor),
)

FUNCTIONS = (
    unary("exp", np.exp, lambda builder, dy, y, x: builder.mul(dy, y), on_number=math.exp),
    unary(  # exp(x) - 1; the gradient is not result + 1, which loses its digits below zero
        "expm1",
        np.expm1,
        lambda builder, dy, y, x: builder.mul(dy, builder.exp(x)),
        on_number=math.expm1,
    ),
    unary("log", np.log, lambda builder, dy, y, x: builder.div(dy, x), on_number=math.log, values="0.5..2"),
    unary(  # log(1 + x)
        "log1p",
        np.log1p,
        lambda builder, dy, y, x: builder.div(dy, builder.add(1.0, x)),
        on_number=math.log1p,
        values="-0.75..2",
    ),
    unary(
        "sqrt",
        np.sqrt,
        lambda builder, dy, y, x: builder.div(builder.mul(dy, 0.5), y),
        on_number=math.sqrt,
        values="0.5..2",
    ),
    unary(
        "tanh",
        np.tanh,
        lambda builder, dy, y, x: builder.mul(dy, builder.sub(1.0, builder.mul(y, y))),
        on_number=math.tanh,
    ),
    unary(  # 1 / (1 + exp(-x)); the gradient is not y (1 - y), which loses its digits where y is near 1
        "sigmoid",
        sigmoid,
        lambda builder, dy, y, x: builder.mul(dy, builder.mul(y, builder.sigmoid(builder.neg(x)))),
        on_number=lambda x: float(sigmoid(x)),
    ),
    unary(
        "erf",
        np.vectorize(math.erf, otypes=[np.float64]),
        lambda builder, dy, y, x: builder.mul(dy, builder.mul(bell(builder, x, 1.0), 2.0 / math.sqrt(math.pi))),
        on_number=math.erf,
    ),
    unary(  # the probability that a standard normal number is less than x
        "normal_cdf",
        np.vectorize(normal_cdf, otypes=[np.float64]),
        lambda builder, dy, y, x: builder.mul(dy, builder.mul(bell(builder, x, 0.5), 1.0 / math.sqrt(2.0 * math.pi))),
        on_number=normal_cdf,
    ),
    unary("sin", np.sin, lambda builder, dy, y, x: builder.mul(dy, builder.cos(x)), on_number=math.sin, values="-4..4"),
    unary(
        "cos",
        np.cos,
        lambda builder, dy, y, x: builder.neg(builder.mul(dy, builder.sin(x))),
        on_number=math.cos,
        values="-4..4",
    ),
)

LOGIC = (
    binary("lt", np.less, result="bool"),
    binary("le", np.less_equal, result="bool"),
    binary(
        "eq",
        np.equal,
        dtypes=DTYPES,
        result="bool",
        traits=SYMMETRIC,
        samples=NUMBER_PAIRS + BOOL_PAIRS,
        errors=BINARY_ERRORS,
    ),
    binary("and", np.logical_and, traits=SYMMETRIC, **BOOLS),
    binary("or", np.logical_or, traits=SYMMETRIC, **BOOLS),
    Op(
        "not",
        infer=unary_rule(("bool",)),
        gradient=zero_gradient,
        reference=np.logical_not,
        traits=PLAIN,
        samples=(sample("bool[]"), sample("bool[B,3]"), sample("bool[0]")),
        errors=(error("dtype", "f32[3]"), error("dtype", "i32[]"), error("operands", "bool[]", "bool[]")),
    ),
    Op(
        "select",  # the first where the condition holds, the second elsewhere
        infer=infer_select,
        gradient=equation(lambda builder, dy, y, condition, a, b: [None, *divided(builder, dy, condition)]),
        reference=np.where,
        traits=PLAIN,
        cost=no_operations,
        samples=(
            sample("bool[]", "f32[]", "f32[]"),
            sample("bool[3]", "f32[3]", "f32[3]"),
            sample("bool[2,1]", "f32[3]", "f32[]"),
            sample("bool[B,1]", "f32[]", "f32[1,3]"),
            sample("bool[]", "f64[2,3]", "f64[3]"),
            sample("bool[0]", "f32[1]", "f32[]"),
            sample("bool[2]", "f32[B,1]", "f32[2*B,1,1]"),
            sample("bool[3]", "i32[3]", "i32[]"),
            sample("bool[2]", "bool[2]", "bool[]"),
        ),
        errors=(
            error("condition", "f32[3]", "f32[3]", "f32[3]"),
            error("differ in dtype", "bool[3]", "f32[3]", "i32[3]"),
            error("broadcast", "bool[3]", "f32[2]", "f32[]"),
            error("operands", "bool[3]", "f32[3]"),
        ),
    ),
)

CONVERSIONS = (
    Op(
        "cast",  # float to integer truncates; to bool is "not zero"
        infer=infer_cast,
        gradient=equation(
            lambda builder, dy, y, x: [builder.cast(dy, dtype=x.type.dtype) if x.type.is_float else None]
        ),
        reference=lambda x, dtype: x.astype("float64" if dtype in FLOATS else NUMPY_NAMES[dtype]),
        attributes={"dtype": REQUIRED},
        traits=PLAIN,
        cost=no_operations,
        samples=(
            sample("f32[]", dtype="f64"),
            sample("f64[B,3]", dtype="f32"),
            sample("f32[2,3]", dtype="f32"),
            sample("f32[0]", dtype="f64"),
            sample("f32[4] -9..9", dtype="i32"),
            sample("f64[4] 0..99", dtype="u8"),
            sample("u8[B,2] 0..255", dtype="f32"),
            sample("i32[3]", dtype="i64"),
            sample("i64[3]", dtype="f64"),
            sample("bool[3]", dtype="f32"),
            sample("i32[5]", dtype="bool"),
        ),
        errors=(error("unknown dtype", "f32[3]", dtype="f16"), error("operands", dtype="i32"), error("needs", "f32[]")),
    ),
    unary("stop_gradient", np.copy, traits=PLAIN | {VIEW, IN_ORDER}, cost=no_operations, **ANY),
    # inserted by passes where bytes must move: the same value at a separate place
    unary("copy", np.copy, lambda builder, dy, y, x: dy, cost=no_operations, **ANY),
)

OPS = ARITHMETIC + FUNCTIONS + LOGIC + CONVERSIONS
