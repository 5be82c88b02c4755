"""`matmul`: the matrix product, batched like NumPy's.

The gradient of an operand that is repeated along leading axes is one product, which sums over these axes as well:

    x[B,T,n] @ w[n,m]     dw = transpose(reshape(x, [B*T,n])) @ reshape(dy, [B*T,m])

The stack of products [B,n,m] is never made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Value
from compiler.ir.op import PRODUCT, Op, error, expect_count, sample
from compiler.ir.types import FLOATS, Batch, Shape, TensorType, TypeRuleError, broadcast_shapes, merged
from compiler.ops.rules import Types, elements, equation, expect_dtype, expect_same_dtype, sum_to

ROWS, COLUMNS = -2, -1  # the axes of a matrix


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


def matmul_gradient(builder: Builder, dc: Value, c: Value, a: Value, b: Value) -> list[Value | None]:
    """da = dc @ transpose(b) and db = transpose(a) @ dc, each summed over the axes along which the operand repeats."""
    axes = repeated(a, c, COLUMNS)
    left, right = (flattened(builder, x, c.type.rank, axes, COLUMNS) for x in (dc, b))
    da = builder.matmul(left, transposed(builder, right))
    axes = repeated(b, c, ROWS)
    left, right = (flattened(builder, x, c.type.rank, axes, ROWS) for x in (a, dc))
    db = builder.matmul(transposed(builder, left), right)
    return [sum_to(builder, extended(builder, x, like.type.rank), like.type) for x, like in ((da, a), (db, b))]


def repeated(operand: Value, c: Value, into: int) -> list[int]:
    """The leading axes of c along which an operand repeats, and which can be merged `into` an axis of its matrices."""
    shape = with_leading_ones(operand, c.type.rank)
    axes = [i for i, dim in enumerate(c.type.shape[:-2]) if dim != 1 and shape[i] == 1]
    batches = [i for i in (*axes, into) if isinstance(c.type.shape[i], Batch)]
    # B*B is not a dimension: those axes are summed afterwards.
    return axes if len(batches) < 2 else [i for i in axes if i not in batches]


def flattened(builder: Builder, x: Value, rank: int, axes: Sequence[int], into: int) -> Value:
    """x with leading axes, counted for a rank, merged into the rows or the columns of its matrices."""
    if not axes:
        return x
    shape, place = with_leading_ones(x, rank), rank + into
    rest = [i for i in range(place) if i not in axes]
    x = builder.transpose(extended(builder, x, rank), permutation=(*rest, *axes, *range(place, rank)))
    size = merged(shape[i] for i in (*axes, place))
    left = [1 if i in axes else size if i == place else dim for i, dim in enumerate(shape)]
    first = next((i for i in range(rank - 2) if left[i] != 1), rank - 2)
    return builder.reshape(x, shape=tuple(left[first:]))


def extended(builder: Builder, x: Value, rank: int) -> Value:
    """x with at least this many axes."""
    return x if x.type.rank >= rank else builder.reshape(x, shape=with_leading_ones(x, rank))


def with_leading_ones(x: Value, rank: int) -> Shape:
    return (1,) * (rank - x.type.rank) + x.type.shape


def matmul_cost(operands: Types, results: Types, batch: int) -> int:
    """2 m n k: a multiplication and an addition for each of the k terms of each element."""
    return 2 * elements(results[0], batch) * elements(operands[0].with_shape(operands[0].shape[-1:]), batch)


OPS = (
    Op(
        "matmul",
        infer=infer_matmul,
        gradient=equation(matmul_gradient),
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
            sample("f32[2,1,1,3]", "f32[B,3,2]"),
            sample("f32[3,2]", "f32[2,1,2,3]"),
            sample("f32[2,B,1,3]", "f32[2,1,3,2]"),
            sample("f32[B,2,3,2]", "f32[2,2,2]"),
            sample("f32[B,B,3]", "f32[3,2]"),
            sample("f32[3,B,B,2]", "f32[1,1,2,2]"),
            sample("f32[0,2,3]", "f32[3,2]"),
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
