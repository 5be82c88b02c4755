"""`matmul`: the matrix product, batched like NumPy's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Value
from compiler.ir.op import PRODUCT, Op, error, expect_count, sample
from compiler.ir.types import FLOATS, TensorType, TypeRuleError, broadcast_shapes
from compiler.ops.rules import Types, elements, equation, expect_dtype, expect_same_dtype, sum_to


def infer_matmul(types: Sequence[TensorType]) -> TensorType:
    expect_count(types, 2)
    a, b = types
    expect_same_dtype(types)
    expect_dtype(a, FLOATS)
    if a.rank < 2 or b.rank < 2:
        raise TypeRuleError("a matrix product needs matrices", "at least 2 dimensions each", f"{a} and {b}")
    if a.shape[-1] != b.shape[-2]:
        rows = f"{a.shape[-1]} rows in the second operand"
        raise TypeRuleError("the inner dimensions of a matrix product differ", rows, f"{a} @ {b}")
    return a.with_shape((*broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))


def transposed(builder: Builder, x: Value) -> Value:
    axes = range(x.type.rank)
    return builder.transpose(x, permutation=(*axes[:-2], axes[-1], axes[-2]))


def matmul_cost(operands: Types, results: Types, batch: int) -> int:
    """2 m n k: a multiplication and an addition for each of the k terms of each element."""
    return 2 * elements(results[0], batch) * elements(operands[0].with_shape(operands[0].shape[-1:]), batch)


OPS = (
    Op(
        "matmul",
        infer=infer_matmul,
        gradient=equation(
            lambda builder, dc, c, a, b: [
                sum_to(builder, builder.matmul(dc, transposed(builder, b)), a.type),
                sum_to(builder, builder.matmul(transposed(builder, a), dc), b.type),
            ]
        ),
        reference=np.matmul,
        traits=frozenset({PRODUCT}),
        cost=matmul_cost,
        samples=(
            sample("f32[2,3]", "f32[3,4]"),
            sample("f64[1,1]", "f64[1,1]"),
            sample("f32[1,3]", "f32[3,1]"),
            sample("f32[B,3]", "f32[3,2]"),
            sample("f32[2,B]", "f32[B,3]"),
            sample("f32[B,2,3]", "f32[3,2]"),
            sample("f32[2,3]", "f32[B,3,1]"),
            sample("f32[B,2,3]", "f32[B,3,2]"),
            sample("f32[2,1,2,3]", "f32[3,3,2]"),
            sample("f32[1,2,3]", "f32[B,3,2]"),
            sample("f32[0,3]", "f32[3,2]"),
            sample("f32[2,0]", "f32[0,2]"),
        ),
        errors=(
            error("inner dimensions", "f32[2,3]", "f32[2,3]"),
            error("inner dimensions", "f32[2,B]", "f32[3,2]"),
            error("matrices", "f32[3]", "f32[3,2]"),
            error("broadcast", "f32[2,2,3]", "f32[3,3,2]"),
            error("differ in dtype", "f32[2,3]", "f64[3,2]"),
            error("dtype", "i32[2,3]", "i32[3,2]"),
            error("operands", "f32[2,3]"),
        ),
    ),
)
