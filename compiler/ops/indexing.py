"""Primitives that produce or use integer positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.op import MAY_FAIL, REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import INTEGERS, Batch, Dim, TensorType, TypeRuleError, show_shape
from compiler.ops.rules import (
    SIGNED,
    elements,
    equation,
    expect_dtype,
    expect_integer,
    expect_shape,
    per_result,
    zero_gradient,
)
from runtime.errors import IndexOutside


def infer_iota(types: Sequence[TensorType], size: Dim) -> TensorType:
    expect_count(types, 0)
    return TensorType("i32", expect_shape((size,)))


def infer_gather(types: Sequence[TensorType]) -> TensorType:
    expect_count(types, 2)
    table, indices = types
    expect_dtype(indices, ("i32",), "the index")
    if not table.rank or table.shape[0] == 0:
        raise TypeRuleError("there is nothing to look up in the table", "at least 1 row", str(table))
    return table.with_shape(indices.shape + table.shape[1:])


def infer_check_index(types: Sequence[TensorType], size: int) -> TensorType:
    expect_count(types, 1)
    expect_dtype(types[0], INTEGERS, "the index")
    expect_integer("the size of the table", size, least=1)
    return types[0]


def check_index(indices: np.ndarray, size: int) -> np.ndarray:
    """Raises IndexOutside for the first index outside 0 … size - 1; its example is the place of the index."""
    outside = (indices < 0) | (indices >= size)
    if outside.any():
        place = int(outside.argmax())
        raise IndexOutside(int(indices.ravel()[place]), size, place)
    return indices


def gather(table: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return table[np.clip(indices, 0, len(table) - 1)]


def infer_scatter_add(types: Sequence[TensorType], size: Dim) -> TensorType:
    expect_count(types, 2)
    indices, updates = types
    expect_dtype(indices, ("i32",), "the index")
    expect_dtype(updates, SIGNED, "the update")
    if updates.shape[: indices.rank] != indices.shape:
        expected = f"a shape that begins with {show_shape(indices.shape)}"
        raise TypeRuleError("there must be one update for each index", expected, str(updates))
    if size == 0:
        raise TypeRuleError("there are no rows to add to", "at least 1 row", "0")
    return updates.with_shape(expect_shape((size,)) + updates.shape[indices.rank :])


def scatter_add(indices: np.ndarray, updates: np.ndarray, size: int) -> np.ndarray:
    result = np.zeros((size, *updates.shape[indices.ndim :]), updates.dtype)
    np.add.at(result, np.clip(indices, 0, size - 1), updates)
    return result


OPS = (
    Op(
        "iota",  # 0, 1, … size - 1
        infer=infer_iota,
        gradient=zero_gradient,
        reference=lambda size: np.arange(size, dtype=np.int32),
        attributes={"size": REQUIRED},
        samples=(sample(size=0), sample(size=1), sample(size=5), sample(size=Batch()), sample(size=Batch(2))),
        errors=(
            error("out of range", size=-1),
            error("shape is not valid", size=2.0),
            error("operands", "i32[]", size=2),
            error("needs"),
        ),
    ),
    Op(
        "check_index",  # the same indices; the step fails if one is outside 0 … size - 1
        infer=infer_check_index,
        gradient=zero_gradient,
        reference=check_index,
        attributes={"size": REQUIRED},
        traits=frozenset({MAY_FAIL}),
        cost=per_result,
        samples=(
            sample("i32[] 0..2", size=3),
            sample("i32[4] 0..2", size=3),
            sample("i32[B] 0..0", size=1),
            sample("i32[B,3] 0..6", size=7),
            sample("i64[2,B] 0..4", size=5),
            sample("u8[3] 0..4", size=5),
            sample("i32[0]", size=3),
        ),
        errors=(
            error("index has the wrong dtype", "f32[2]", size=3),
            error("index has the wrong dtype", "bool[2]", size=3),
            error("size of the table is not valid", "i32[2]", size=0),
            error("size of the table is not valid", "i32[2]", size=2.0),
            error("size of the table is not valid", "i32[2]", size=Batch()),
            error("operands", size=3),
            error("needs", "i32[2]"),
        ),
    ),
    Op(
        "gather",  # rows of the table; for an index outside 0 … rows - 1 the nearest row
        infer=infer_gather,
        gradient=equation(
            lambda builder, dy, y, table, indices: [builder.scatter_add(indices, dy, size=table.type.shape[0]), None]
        ),
        reference=gather,
        lookup=(0, 1),
        samples=(
            sample("f32[3]", "i32[] 0..2"),
            sample("f32[3]", "i32[4] 0..2"),
            sample("f32[5,2]", "i32[3] 0..4"),
            sample("f64[2,3]", "i32[2,2] 0..1"),
            sample("f32[4,2]", "i32[B] 0..3"),
            sample("f32[1,2]", "i32[3] 0..0"),
            sample("f32[3,0]", "i32[2] 0..2"),
            sample("f32[3,2]", "i32[0] 0..2"),
            sample("f32[B,2]", "i32[3] 0..0"),
            sample("f32[3,2,2]", "i32[B,1] 0..2"),
            sample("i32[3]", "i32[B] 0..2"),
            sample("bool[3]", "i32[2] 0..2"),
            sample("f32[3]", "i32[9] -4..6"),
            sample("f32[3,2]", "i32[B] 3..9"),
        ),
        errors=(
            error("index has the wrong dtype", "f32[3]", "f32[2]"),
            error("index has the wrong dtype", "f32[3]", "i64[2]"),
            error("nothing to look up", "f32[]", "i32[2]"),
            error("nothing to look up", "f32[0,2]", "i32[2]"),
            error("operands", "f32[3]"),
        ),
    ),
    Op(
        "scatter_add",  # the adjoint of gather: adds each update to the row that gather reads
        infer=infer_scatter_add,
        gradient=equation(lambda builder, dy, y, indices, updates: [None, builder.gather(dy, indices)]),
        reference=scatter_add,
        attributes={"size": REQUIRED},
        cost=lambda operands, results, batch: elements(operands[1], batch),
        samples=(
            sample("i32[] 0..2", "f32[]", size=3),
            sample("i32[4] 0..2", "f32[4]", size=3),
            sample("i32[3] 0..4", "f32[3,2]", size=5),
            sample("i32[2,2] 0..1", "f64[2,2,3]", size=2),
            sample("i32[B] 0..3", "f32[B,2]", size=4),
            sample("i32[3] 0..0", "f32[3,2]", size=1),
            sample("i32[0] 0..2", "f32[0,2]", size=3),
            sample("i32[2] 0..2", "f32[2,0]", size=3),
            sample("i32[3] 0..0", "f32[3,2]", size=Batch()),
            sample("i32[2] 0..2", "i32[2]", size=3),
            sample("i32[9] -4..6", "f32[9]", size=3),
            sample("i32[B] 3..9", "f32[B,2]", size=3),
        ),
        errors=(
            error("one update for each index", "i32[3]", "f32[2]", size=3),
            error("one update for each index", "i32[3,2]", "f32[3]", size=3),
            error("no rows", "i32[3]", "f32[3]", size=0),
            error("index has the wrong dtype", "f32[3]", "f32[3]", size=3),
            error("update has the wrong dtype", "i32[3]", "bool[3]", size=3),
            error("operands", "i32[3]", size=3),
        ),
    ),
)
