"""Reductions along given axes: non-negative, ascending, each once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Node, Value
from compiler.ir.op import REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import Shape, TensorType, TypeRuleError
from compiler.ops.rules import (
    NUMBERS,
    SIGNED,
    elements,
    expect_axes,
    expect_dtype,
    expect_same_dtype,
    per_operand,
    zero_gradient,
)


def kept(shape: Shape, axes: Sequence[int]) -> Shape:
    """The shape after a reduction that keeps its axes with length 1."""
    return tuple(1 if axis in axes else dim for axis, dim in enumerate(shape))


def infer_sum(types: Sequence[TensorType], axes: tuple[int, ...], keepdims: bool) -> TensorType:
    expect_count(types, 1)
    expect_dtype(types[0], SIGNED)
    expect_axes(axes, types[0].rank)
    shape = types[0].shape
    return types[0].with_shape(
        kept(shape, axes) if keepdims else (dim for axis, dim in enumerate(shape) if axis not in axes)
    )


def infer_sum_of_products(types: Sequence[TensorType], axes: tuple[int, ...]) -> TensorType:
    expect_count(types, 2)
    expect_same_dtype(types)
    if types[0].shape != types[1].shape:
        raise TypeRuleError("the factors differ in shape", str(types[0]), str(types[1]))
    return infer_sum(types[:1], axes, keepdims=False)


def infer_reduce_max(types: Sequence[TensorType], axes: tuple[int, ...], keepdims: bool) -> TensorType:
    expect_count(types, 1)
    expect_dtype(types[0], NUMBERS)
    expect_some(types[0], expect_axes(axes, types[0].rank))
    return infer_sum([types[0].with_dtype("f32")], axes, keepdims).with_dtype(types[0].dtype)


def infer_argmax(types: Sequence[TensorType], axis: int) -> TensorType:
    expect_count(types, 1)
    expect_dtype(types[0], NUMBERS)
    expect_some(types[0], expect_axes((axis,), types[0].rank))
    return infer_sum([types[0].with_dtype("f32")], (axis,), keepdims=False).with_dtype("i32")


def expect_some(type: TensorType, axes: Sequence[int]) -> None:
    if any(type.shape[axis] == 0 for axis in axes):
        raise TypeRuleError("the maximum of no elements is not defined", "at least 1 element", str(type))


def sum_gradient(builder: Builder, node: Node, dy: Value) -> list[Value | None]:
    x = node.operands[0].type
    dy = builder.reshape(dy, shape=kept(x.shape, node.attributes["axes"]))
    return [builder.broadcast(dy, shape=x.shape)]


def sum_of_products_gradient(builder: Builder, node: Node, dy: Value) -> list[Value | None]:
    a, b = node.operands
    dy = builder.reshape(dy, shape=kept(a.type.shape, node.attributes["axes"]))
    return [builder.mul(dy, b), builder.mul(dy, a)]


def reduce_max_gradient(builder: Builder, node: Node, dy: Value) -> list[Value | None]:
    """Equal shares for all elements that attain the maximum; none does if it is NaN, and then 0 / 0 makes all NaN."""
    x, axes = node.operands[0], node.attributes["axes"]
    y, dy = (builder.reshape(value, shape=kept(x.type.shape, axes)) for value in (node.result, dy))
    attained = builder.eq(x, y)
    ties = builder.sum(builder.cast(attained, dtype=x.type.dtype), axes=axes, keepdims=True)
    return [builder.add(builder.select(attained, builder.div(dy, ties), 0.0), builder.div(0.0, ties))]


REDUCED = (
    sample("f32[]", axes=()),
    sample("f32[3]", axes=(0,)),
    sample("f32[2,3]", axes=(0, 1)),
    sample("f32[2,3]", axes=(1,)),
    sample("f64[2,3]", axes=(0,), keepdims=True),
    sample("f32[B,3]", axes=(0,)),
    sample("f32[B,2,3]", axes=(0, 2), keepdims=True),
    sample("f32[1,3]", axes=(0,)),
    sample("f32[2,3]", axes=()),
    sample("i32[B,3]", axes=(1,)),
)

OPS = (
    Op(
        "sum",
        infer=infer_sum,
        gradient=sum_gradient,
        reference=lambda x, axes, keepdims: x.sum(axes, dtype=x.dtype, keepdims=keepdims),
        attributes={"axes": REQUIRED, "keepdims": False},
        reduces="sum",
        cost=per_operand,
        samples=(*REDUCED, sample("f32[0,3]", axes=(0,)), sample("i64[4]", axes=(0,))),
        errors=(
            error("axis is out of range", "f32[2,3]", axes=(2,)),
            error("axis is out of range", "f32[2,3]", axes=(0, 0)),
            error("axis is out of range", "f32[2,3]", axes=(1, 0)),
            error("axis is out of range", "f32[]", axes=(0,)),
            error("axis is out of range", "f32[2]", axes=(-1,)),
            error("axis is out of range", "f32[2]", axes=(0.0,)),
            error("dtype", "bool[2]", axes=(0,)),
            error("operands", "f32[]", "f32[]", axes=()),
            error("keepdims is not valid", "f32[2]", axes=(0,), keepdims=1),
            error("needs", "f32[2]"),
        ),
    ),
    Op(
        "sum_of_products",  # sum(a * b), without writing a product of the size of a and b
        infer=infer_sum_of_products,
        gradient=sum_of_products_gradient,
        reference=lambda a, b, axes: (a * b).sum(axes, dtype=a.dtype),
        attributes={"axes": REQUIRED},
        reduces="sum",
        cost=lambda operands, results, batch: 2 * elements(operands[0], batch),
        samples=(
            sample("f32[]", "f32[]", axes=()),
            sample("f32[3]", "f32[3]", axes=(0,)),
            sample("f32[2,3]", "f32[2,3]", axes=(0, 1)),
            sample("f64[2,3]", "f64[2,3]", axes=(1,)),
            sample("f32[B,3]", "f32[B,3]", axes=(0,)),
            sample("f32[B,2,3,4]", "f32[B,2,3,4]", axes=(0, 1, 2)),
            sample("f32[2,0,3]", "f32[2,0,3]", axes=(0, 1)),
            sample("i32[B,3]", "i32[B,3]", axes=(1,)),
        ),
        errors=(
            error("differ in shape", "f32[2,3]", "f32[3]", axes=(0,)),
            error("differ in dtype", "f32[3]", "f64[3]", axes=(0,)),
            error("axis is out of range", "f32[3]", "f32[3]", axes=(1,)),
            error("dtype", "bool[2]", "bool[2]", axes=(0,)),
            error("operands", "f32[2]", axes=(0,)),
        ),
    ),
    Op(
        "reduce_max",
        infer=infer_reduce_max,
        gradient=reduce_max_gradient,
        reference=lambda x, axes, keepdims: x.max(axes, keepdims=keepdims),
        attributes={"axes": REQUIRED, "keepdims": False},
        reduces="max",
        cost=per_operand,
        samples=(*REDUCED, sample("f32[0,3]", axes=(1,)), sample("u8[4]", axes=(0,))),
        errors=(
            error("no elements", "f32[0,3]", axes=(0,)),
            error("axis is out of range", "f32[2,3]", axes=(2,)),
            error("dtype", "bool[2]", axes=(0,)),
            error("operands", axes=()),
        ),
    ),
    Op(
        "argmax",  # the position of the first maximum
        infer=infer_argmax,
        gradient=zero_gradient,
        reference=lambda x, axis: x.argmax(axis).astype(np.int32),
        attributes={"axis": REQUIRED},
        reduces="argmax",
        cost=per_operand,
        samples=(
            sample("f32[3]", axis=0),
            sample("f32[2,3]", axis=1),
            sample("f64[B,3]", axis=0),
            sample("f32[B,2,3]", axis=1),
            sample("f32[2,1]", axis=1),
            sample("f32[0,3]", axis=1),
            sample("i32[5]", axis=0),
        ),
        errors=(
            error("no elements", "f32[0]", axis=0),
            error("axis is out of range", "f32[3]", axis=1),
            error("axis is out of range", "f32[]", axis=0),
            error("dtype", "bool[2]", axis=0),
            error("operands", axis=0),
        ),
    ),
)
