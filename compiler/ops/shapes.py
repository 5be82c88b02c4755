"""Primitives that move elements without computing, and `extent`, which counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Node, Value
from compiler.ir.op import BATCH, IN_ORDER, REQUIRED, VIEW, Op, error, expect_count, sample
from compiler.ir.types import (
    LARGEST_DIMENSION,
    Batch,
    Dim,
    Shape,
    TensorType,
    TypeRuleError,
    broadcast_shapes,
    extent,
    fits,
    show_shape,
)
from compiler.ops.rules import (
    NUMBERS,
    equation,
    expect_axes,
    expect_dtype,
    expect_integer,
    expect_integers,
    expect_same_dtype,
    expect_shape,
    expect_static,
    is_integer,
    show_attribute,
    sum_to,
    zero_gradient,
)


def infer_reshape(types: Sequence[TensorType], shape: Shape) -> TensorType:
    expect_count(types, 1)
    result = types[0].with_shape(expect_shape(shape))
    before, after = extent(types[0].shape), extent(shape)
    if before != after:
        expected, found = f"{before} elements, as in {types[0]}", f"{after} in {show_shape(shape)}"
        raise TypeRuleError("reshape changes the number of elements", expected, found)
    return result


def infer_transpose(types: Sequence[TensorType], permutation: tuple[int, ...]) -> TensorType:
    expect_count(types, 1)
    rank = types[0].rank
    integers = isinstance(permutation, tuple) and all(map(is_integer, permutation))
    if not integers or sorted(permutation) != list(range(rank)):
        found = show_attribute(permutation)
        raise TypeRuleError("not a permutation of the axes", f"axes 0 to {rank - 1}, each once", found)
    return types[0].with_shape(types[0].shape[axis] for axis in permutation)


def infer_broadcast(types: Sequence[TensorType], shape: Shape) -> TensorType:
    expect_count(types, 1)
    result = types[0].with_shape(expect_shape(shape))
    if len(shape) < types[0].rank or broadcast_shapes(types[0].shape, shape) != shape:
        expected = f"a shape that {types[0]} broadcasts to"
        raise TypeRuleError("the tensor does not broadcast to the shape", expected, show_shape(shape))
    return result


def infer_concat(types: Sequence[TensorType], axis: int) -> TensorType:
    if not types:
        raise TypeRuleError("wrong number of operands", "at least 1", "0")
    expect_same_dtype(types)
    first = types[0].shape
    expect_axes((axis,), len(first))
    if any(type.rank != len(first) or around(type.shape, axis) != around(first, axis) for type in types):
        found = " and ".join(map(str, types))
        raise TypeRuleError("the tensors do not fit together", f"equal dimensions apart from axis {axis}", found)
    total = sum(expect_static([type.shape[axis] for type in types], "the axis to join along"))
    return types[0].with_shape((*first[:axis], total, *first[axis + 1 :]))


def around(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def concat_gradient(builder: Builder, node: Node, dy: Value) -> list[Value | None]:
    axis, shape, gradients, at = node.attributes["axis"], dy.type.shape, [], 0
    for operand in node.operands:
        end = at + operand.type.shape[axis]  # type: ignore[operator]
        start = tuple(at if i == axis else 0 for i in range(len(shape)))
        stop = tuple(end if i == axis else dim for i, dim in enumerate(shape))
        gradients.append(builder.slice(dy, start=start, stop=stop, step=(1,) * len(shape)))
        at = end
    return gradients


def inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def infer_slice(types: Sequence[TensorType], start: tuple[int, ...], stop: Shape, step: tuple[int, ...]) -> TensorType:
    expect_count(types, 1)
    shape = types[0].shape
    if not all(isinstance(each, tuple) and len(each) == len(shape) for each in (start, stop, step)):
        found = " and ".join(map(show_attribute, (start, stop, step)))
        raise TypeRuleError("the slice has the wrong number of axes", f"{len(shape)}, for {types[0]}", found)
    return types[0].with_shape(map(sliced, shape, start, stop, step))


def sliced(dim: Dim, start: int, stop: Dim, step: int) -> Dim:
    """The length of `start:stop:step` of an axis."""
    found = f"{start}:{stop}:{step}"
    if isinstance(dim, Batch) or isinstance(stop, Batch):
        if (start, stop, step) != (0, dim, 1):
            raise TypeRuleError("the batch axis cannot be sliced", f"0:{dim}:1", found)
        return dim
    if not all(map(is_integer, (start, stop, step))) or not 0 <= start <= stop <= dim or step < 1:
        raise TypeRuleError("the slice is out of range", f"0 <= start <= stop <= {dim} and a step of at least 1", found)
    return len(range(start, stop, step))


def slice_gradient(builder: Builder, node: Node, dy: Value) -> list[Value | None]:
    """Every element back in its place, zeros around and between."""
    start, step = node.attributes["start"], node.attributes["step"]
    interior = tuple(s - 1 for s in step)
    covered = map(padded, dy.type.shape, start, (0,) * dy.type.rank, interior)
    whole = node.operands[0].type.shape
    high = tuple(0 if isinstance(dim, Batch) else dim - end for dim, end in zip(whole, covered, strict=True))  # type: ignore
    return [builder.pad(dy, low=start, high=high, interior=interior if any(interior) else ())]


def infer_pad(types: Sequence[TensorType], low: Any, high: Any, interior: Any, value: float) -> TensorType:
    expect_count(types, 1)
    x = types[0]
    expect_dtype(x, NUMBERS)
    interior = interior or (0,) * x.rank
    for name, sizes in (("padding before", low), ("padding after", high), ("padding between", interior)):
        expect_integers(name, sizes, x.rank)
    if not isinstance(value, int | float) or not fits(value, x.dtype):
        raise TypeRuleError("the padding value does not fit the dtype", f"a value of {x.dtype}", str(value))
    return x.with_shape(map(padded, x.shape, low, high, interior))


def padded(dim: Dim, low: int, high: int, interior: int) -> Dim:
    """The length of an axis with `low` elements added before, `high` after, and `interior` between any two."""
    if isinstance(dim, Batch):
        if low or high or interior:
            found = f"{low} before, {high} after, {interior} between"
            raise TypeRuleError("the batch axis cannot be padded", "none", found)
        return dim
    return low + dim + interior * max(dim - 1, 0) + high


def pad_gradient(builder: Builder, node: Node, dy: Value) -> list[Value | None]:
    x, low = node.operands[0].type, node.attributes["low"]
    interior = node.attributes["interior"] or (0,) * x.rank
    stop = tuple(map(padded, x.shape, low, (0,) * x.rank, interior))
    return [builder.slice(dy, start=low, stop=stop, step=tuple(i + 1 for i in interior))]


def pad_reference(x: np.ndarray, low: Any, high: Any, interior: Any, value: float) -> np.ndarray:
    steps = [between + 1 for between in interior or (0,) * x.ndim]
    covered = [max((dim - 1) * step + 1, 0) for dim, step in zip(x.shape, steps, strict=True)]
    y = np.full([before + dim + after for before, dim, after in zip(low, covered, high, strict=True)], value, x.dtype)
    y[tuple(map(slice, low, map(sum, zip(low, covered, strict=True)), steps))] = x
    return y


def infer_flip(types: Sequence[TensorType], axes: tuple[int, ...]) -> TensorType:
    expect_count(types, 1)
    expect_axes(axes, types[0].rank)
    return types[0]


def infer_extent(types: Sequence[TensorType], factor: int, power: int) -> TensorType:
    expect_count(types, 0)
    expect_integer("factor", factor)
    expect_integer("power", power, least=1)
    return TensorType("f32")


OPS = (
    Op(
        "reshape",
        infer=infer_reshape,
        gradient=equation(lambda builder, dy, y, x: [builder.reshape(dy, shape=x.type.shape)]),
        reference=np.reshape,
        attributes={"shape": REQUIRED},
        traits=frozenset({VIEW, IN_ORDER}),
        samples=(
            sample("f32[]", shape=()),
            sample("f32[]", shape=(1, 1)),
            sample("f32[6]", shape=(2, 3)),
            sample("f64[1,1]", shape=()),
            sample("f32[2,3]", shape=(3, 1, 2)),
            sample("f32[B,2,3]", shape=(Batch(), 6)),
            sample("f32[B,4]", shape=(Batch(4),)),
            sample("f32[6*B]", shape=(3, Batch(), 2)),
            sample("f32[0,3]", shape=(5, 0)),
            sample("f32[B,2,0]", shape=(0,)),
            sample("i32[4]", shape=(2, 2)),
            sample("bool[B]", shape=(1, Batch())),
        ),
        errors=(
            error("number of elements", "f32[6]", shape=(4,)),
            error("number of elements", "f32[B,2]", shape=(2,)),
            error("number of elements", "f32[B,B]", shape=(Batch(),)),
            error("shape is not valid", "f32[6]", shape=(2, 3.0)),
            error("out of range", "f32[6]", shape=(-1,)),
            error("operands", shape=()),
            error("needs", "f32[6]"),
        ),
    ),
    Op(
        "transpose",
        infer=infer_transpose,
        gradient=equation(
            lambda builder, dy, y, x: [builder.transpose(dy, permutation=inverse(y.node.attributes["permutation"]))]
        ),
        reference=lambda x, permutation: x.transpose(permutation),
        attributes={"permutation": REQUIRED},
        traits=frozenset({VIEW}),
        samples=(
            sample("f32[]", permutation=()),
            sample("f32[3]", permutation=(0,)),
            sample("f32[2,3]", permutation=(1, 0)),
            sample("f64[2,3]", permutation=(0, 1)),
            sample("f32[2,3,4]", permutation=(2, 0, 1)),
            sample("f32[2,3,4]", permutation=(1, 2, 0)),
            sample("f32[B,3,2]", permutation=(1, 0, 2)),
            sample("f32[1,B,2]", permutation=(2, 1, 0)),
            sample("f32[0,2]", permutation=(1, 0)),
            sample("i32[2,3]", permutation=(1, 0)),
            sample("f32[1,2,1,3]", permutation=(3, 2, 1, 0)),
        ),
        errors=(
            error("permutation", "f32[2,3]", permutation=(0,)),
            error("permutation", "f32[2,3]", permutation=(0, 0)),
            error("permutation", "f32[2,3]", permutation=(1, 2)),
            error("permutation", "f32[2]", permutation=(False,)),
            error("permutation", "f32[2]", permutation=0),
            error("operands", permutation=()),
        ),
    ),
    Op(
        "broadcast",
        infer=infer_broadcast,
        gradient=equation(lambda builder, dy, y, x: [sum_to(builder, dy, x.type)]),
        reference=np.broadcast_to,
        attributes={"shape": REQUIRED},
        traits=frozenset({VIEW}),
        samples=(
            sample("f32[]", shape=()),
            sample("f32[]", shape=(2, 3)),
            sample("f32[]", shape=(Batch(), 3)),
            sample("f32[3]", shape=(2, 3)),
            sample("f32[2,1]", shape=(2, 3)),
            sample("f64[1,3]", shape=(4, 2, 3)),
            sample("f32[1]", shape=(Batch(2),)),
            sample("f32[1]", shape=(1,)),
            sample("f32[B,1]", shape=(2, Batch(), 3)),
            sample("f32[1,2]", shape=(0, 2)),
            sample("f32[3]", shape=(3,)),
            sample("i32[]", shape=(2,)),
        ),
        errors=(
            error("broadcast", "f32[2]", shape=(3,)),
            error("broadcast", "f32[3]", shape=(1,)),
            error("broadcast", "f32[2,3]", shape=(3,)),
            error("broadcast", "f32[B]", shape=(3,)),
            error("shape is not valid", "f32[]", shape=(True,)),
            error("operands", shape=(2,)),
        ),
    ),
    Op(
        "concat",
        infer=infer_concat,
        gradient=concat_gradient,
        reference=lambda *xs, axis: np.concatenate(xs, axis),
        attributes={"axis": REQUIRED},
        samples=(
            sample("f32[2]", "f32[3]", axis=0),
            sample("f32[2,1]", "f32[2,3]", axis=1),
            sample("f64[1,2]", "f64[3,2]", "f64[2,2]", axis=0),
            sample("f32[B,1]", "f32[B,2]", axis=1),
            sample("f32[3]", axis=0),
            sample("f32[0]", "f32[2]", axis=0),
            sample("f32[2,2]", "f32[2,0]", axis=1),
            sample("f32[2,B,1]", "f32[1,B,1]", axis=0),
            sample("f32[1,2,1]", "f32[1,2,1]", axis=2),
            sample("i32[2]", "i32[1]", axis=0),
            sample("f32[1]", "f32[1]", "f32[1]", "f32[1]", axis=0),
        ),
        errors=(
            error("fit together", "f32[2,3]", "f32[3,3]", axis=1),
            error("fit together", "f32[2]", "f32[2,1]", axis=0),
            error("differ in dtype", "f32[2]", "i32[2]", axis=0),
            error("axis is out of range", "f32[2]", "f32[2]", axis=1),
            error("cannot be the batch", "f32[B]", "f32[2]", axis=0),
            error("operands", axis=0),
        ),
    ),
    Op(
        "slice",  # start:stop:step of every axis
        infer=infer_slice,
        gradient=slice_gradient,
        reference=lambda x, start, stop, step: x[tuple(map(slice, start, stop, step))],
        attributes={"start": REQUIRED, "stop": REQUIRED, "step": REQUIRED},
        traits=frozenset({VIEW}),
        samples=(
            sample("f32[]", start=(), stop=(), step=()),
            sample("f32[5]", start=(1,), stop=(4,), step=(1,)),
            sample("f32[7]", start=(1,), stop=(7,), step=(3,)),
            sample("f32[6]", start=(1,), stop=(6,), step=(2,)),
            sample("f32[5]", start=(2,), stop=(2,), step=(2,)),
            sample("f64[3,4]", start=(0, 1), stop=(3, 2), step=(2, 5)),
            sample("f32[B,4]", start=(0, 1), stop=(Batch(), 4), step=(1, 2)),
            sample("f32[2,B]", start=(1, 0), stop=(2, Batch()), step=(1, 1)),
            sample("f32[1]", start=(0,), stop=(1,), step=(1,)),
            sample("f32[0,2]", start=(0, 0), stop=(0, 1), step=(1, 1)),
            sample("i32[4]", start=(0,), stop=(4,), step=(3,)),
            sample("f32[2*B,3]", start=(0, 2), stop=(Batch(2), 3), step=(1, 1)),
        ),
        errors=(
            error("slice is out of range", "f32[3]", start=(0,), stop=(4,), step=(1,)),
            error("slice is out of range", "f32[3]", start=(2,), stop=(1,), step=(1,)),
            error("slice is out of range", "f32[3]", start=(-1,), stop=(3,), step=(1,)),
            error("slice is out of range", "f32[3]", start=(0,), stop=(3,), step=(0,)),
            error("batch axis", "f32[B]", start=(0,), stop=(3,), step=(1,)),
            error("batch axis", "f32[B]", start=(0,), stop=(Batch(),), step=(2,)),
            error("batch axis", "f32[3]", start=(0,), stop=(Batch(),), step=(1,)),
            error("number of axes", "f32[3,2]", start=(0,), stop=(3,), step=(1,)),
            error("number of axes", "f32[3]", start=0, stop=3, step=1),
            error("operands", start=(), stop=(), step=()),
        ),
    ),
    Op(
        "pad",  # `interior` elements between any two; () means none on any axis
        infer=infer_pad,
        gradient=pad_gradient,
        reference=pad_reference,
        attributes={"low": REQUIRED, "high": REQUIRED, "interior": (), "value": 0.0},
        samples=(
            sample("f32[]", low=(), high=()),
            sample("f32[3]", low=(1,), high=(2,)),
            sample("f32[3]", low=(0,), high=(0,), interior=(2,)),
            sample("f32[2,3]", low=(0, 1), high=(2, 0), interior=(1, 3), value=-1.5),
            sample("f64[1,2]", low=(1, 0), high=(0, 1), interior=(4, 0)),
            sample("f32[B,2]", low=(0, 1), high=(0, 1)),
            sample("f32[2,B]", low=(1, 0), high=(0, 0), interior=(1, 0)),
            sample("f32[0]", low=(1,), high=(2,), interior=(3,)),
            sample("f32[0,2]", low=(0, 1), high=(0, 0)),
            sample("f32[2]", low=(0,), high=(0,)),
            sample("f32[1]", low=(1,), high=(0,), value=float("-inf")),
            sample("i32[2]", low=(1,), high=(1,), value=7),
        ),
        errors=(
            error("padding before is not valid", "f32[3]", low=(-1,), high=(0,)),
            error("padding after is not valid", "f32[3]", low=(0,), high=(0, 1)),
            error("padding between is not valid", "f32[3]", low=(0,), high=(0,), interior=(-1,)),
            error("batch axis", "f32[B]", low=(1,), high=(0,)),
            error("does not fit", "i32[3]", low=(0,), high=(1,), value=0.5),
            error("does not fit", "u8[3]", low=(0,), high=(1,), value=-1),
            error("does not fit", "f32[3]", low=(0,), high=(1,), value=Batch()),
            error("dtype", "bool[3]", low=(0,), high=(1,)),
            error("out of range", "f32[3]", low=(LARGEST_DIMENSION,), high=(0,)),
            error("operands", low=(), high=()),
        ),
    ),
    Op(
        "flip",
        infer=infer_flip,
        gradient=equation(lambda builder, dy, y, x: [builder.flip(dy, axes=y.node.attributes["axes"])]),
        reference=lambda x, axes: np.flip(x, axes),
        attributes={"axes": REQUIRED},
        traits=frozenset({VIEW}),
        samples=(
            sample("f32[3]", axes=(0,)),
            sample("f32[2,3]", axes=(1,)),
            sample("f64[2,3]", axes=(0, 1)),
            sample("f32[B,3]", axes=(0,)),
            sample("f32[2,B,3]", axes=(1, 2)),
            sample("f32[]", axes=()),
            sample("f32[2]", axes=()),
            sample("f32[1,2]", axes=(0,)),
            sample("f32[0,2]", axes=(0, 1)),
            sample("i32[4]", axes=(0,)),
            sample("bool[2,2]", axes=(0,)),
        ),
        errors=(
            error("axis is out of range", "f32[3]", axes=(1,)),
            error("axis is out of range", "f32[3]", axes=(0, 0)),
            error("axis is out of range", "f32[]", axes=(0,)),
            error("operands", axes=()),
        ),
    ),
    Op(
        "extent",  # factor * B**power, the number of elements of a shape that contains the batch
        infer=infer_extent,
        gradient=zero_gradient,
        reference=lambda factor, power, batch: np.float64(factor * batch**power),
        attributes={"factor": 1, "power": 1},
        traits=frozenset({BATCH}),
        samples=(sample(), sample(factor=784), sample(factor=3, power=2), sample(factor=0)),
        errors=(
            error("factor is not valid", factor=-1),
            error("power is not valid", power=0),
            error("factor is not valid", factor=1.5),
            error("operands", "f32[]"),
        ),
    ),
)
