"""Random numbers, for initial values and dropout, and `orthogonalize`, for initial values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.op import RANDOM, REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import FLOATS, Batch, Shape, TensorType, TypeRuleError
from compiler.ops.rules import expect_dtype, expect_integer, expect_rank, expect_shape, show_attribute, zero_gradient
from runtime.random import draw

DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")


def infer_random(types: Sequence[TensorType], shape: Shape, distribution: str, stream: int) -> TensorType:
    expect_count(types, min(max(len(types), 2), 3))
    if list(types[:2]) != [TensorType("i64"), TensorType("i32")]:
        found = " and ".join(map(str, types))
        raise TypeRuleError("random numbers need the seed and the step", "i64[] and i32[]", found)
    if types[2:] and (types[2] != TensorType("i64") or not expect_shape(shape)):
        found = f"{types[2]} for {show_attribute(shape)}"
        raise TypeRuleError("the first row of random numbers is not valid", "i64[], and a shape with rows", found)
    if distribution not in DISTRIBUTIONS:
        raise TypeRuleError("unknown distribution", ", ".join(DISTRIBUTIONS), str(distribution))
    expect_integer("stream", stream)
    return TensorType("f32", expect_shape(shape))


def random(
    seed: np.ndarray, step: np.ndarray, *first: np.ndarray, shape: tuple[int, ...], distribution: str, stream: int
) -> np.ndarray:
    return draw(int(seed), int(step), stream, shape, distribution, *map(int, first))


def infer_orthogonalize(types: Sequence[TensorType]) -> TensorType:
    expect_count(types, 1)
    expect_dtype(types[0], FLOATS)
    expect_rank(types[0], 2, "the matrix")
    return types[0]


def orthogonalize(x: np.ndarray) -> np.ndarray:
    """Q of the QR decomposition with a positive diagonal of R: uniform over orthogonal matrices for normal x."""
    tall = x if x.shape[0] >= x.shape[1] else x.T
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diagonal(r) < 0.0, -1.0, 1.0)
    return q if tall is x else q.T


OPS = (
    Op(
        "random",  # a function of (seed, step, stream) and of the first row, if given; uniform is in [0, 1)
        infer=infer_random,
        gradient=zero_gradient,
        reference=random,
        attributes={"shape": REQUIRED, "distribution": "uniform", "stream": 0},
        traits=frozenset({RANDOM}),
        samples=(
            sample("i64[] 0..9", "i32[] 0..9", shape=(3,)),
            sample("i64[] 0..9", "i32[] 0..9", shape=(), distribution="normal"),
            sample("i64[] -9..9", "i32[] 0..9", shape=(2, 3), distribution="truncated_normal", stream=7),
            sample("i64[] 0..9", "i32[] 0..9", shape=(Batch(), 4), stream=1),
            sample("i64[] 0..9", "i32[] 0..9", shape=(0, 2), distribution="truncated_normal"),
            sample("i64[] 0..9", "i32[] 0..9", "i64[] 0..9", shape=(Batch(), 5)),
            sample("i64[] 0..9", "i32[] 0..9", "i64[] 0..9", shape=(Batch(2), 3), distribution="normal"),
            sample("i64[] 0..9", "i32[] 0..9", "i64[] 0..9", shape=(Batch(),), distribution="truncated_normal"),
            sample("i64[] 0..9", "i32[] 0..9", "i64[] 0..9", shape=(Batch(), 0), distribution="normal"),
        ),
        errors=(
            error("seed and the step", "i32[]", "i32[]", shape=(3,)),
            error("seed and the step", "i64[]", "i32[2]", shape=(3,)),
            error("operands", "i64[]", shape=(3,)),
            error("operands", "i64[]", "i32[]", "i64[]", "i64[]", shape=(3,)),
            error("first row", "i64[]", "i32[]", "i32[]", shape=(3,)),
            error("first row", "i64[]", "i32[]", "i64[]", shape=()),
            error("unknown distribution", "i64[]", "i32[]", shape=(3,), distribution="cauchy"),
            error("stream is not valid", "i64[]", "i32[]", shape=(3,), stream=-1),
            error("out of range", "i64[]", "i32[]", shape=(-3,)),
            error("shape is not valid", "i64[]", "i32[]", shape=(0.5,)),
        ),
    ),
    Op(
        "orthogonalize",  # orthonormal rows or columns, whichever are fewer; not differentiable
        infer=infer_orthogonalize,
        reference=orthogonalize,
        samples=(
            sample("f32[3,3]"),
            sample("f32[4,2]"),
            sample("f32[2,4]"),
            sample("f64[1,1]"),
            sample("f32[1,3]"),
            sample("f32[B,2]"),
            sample("f32[0,2]"),
        ),
        errors=(error("number of dimensions", "f32[3]"), error("dtype", "i32[2,2]"), error("operands")),
    ),
)
