"""`fused`: a region of a graph as one node, created by passes. It computes what its body computes.

fused(*operands, step=int, body=Graph)

The inputs of the body are the operands, its outputs the results, all whole tensors. `step` is for targets that divide
their work: how many indices of the divided axis to compute at a time, 0 for all at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Value
from compiler.ir.interpreter import interpret
from compiler.ir.op import BATCH, REGION, REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import TensorType, TypeRuleError
from compiler.ops.control import body, expect_body
from compiler.ops.rules import expect_integer


def infer_fused(types: Sequence[TensorType], step: int, body: Graph) -> Sequence[TensorType]:
    expect_integer("the step", step)
    expect_body(body)
    expect_count(types, len(body.inputs))
    for value, type in zip(body.inputs, types, strict=True):
        if value.type != type:
            raise TypeRuleError(f"the body expects a different type for {value.name}", str(value.type), str(type))
    if not body.outputs:
        raise TypeRuleError("a fused region has no result", "at least 1 output of the body", "0")
    return [value.type for value in body.outputs.values()]


def fused(*arrays: np.ndarray, step: int, body: Graph, batch: int) -> list[np.ndarray]:
    names = (value.name for value in body.inputs)
    return list(interpret(body, dict(zip(names, arrays, strict=True)), batch).values())


def activated(builder: Builder, x: Value, b: Value) -> list[Value]:
    """tanh(x + b), and its sum over the batch."""
    y = builder.tanh(builder.add(x, b))
    return [y, builder.sum(y, axes=(0,))]


ACTIVATION = body("x0: f32[B,4]; x1: f32[4]", activated)

OPS = (
    Op(
        "fused",
        infer=infer_fused,  # the gradient rule is in compiler/gradient/autodiff.py
        reference=fused,
        attributes={"step": 0, "body": REQUIRED},
        traits=frozenset({BATCH, REGION}),
        samples=(
            sample("f32[B,4]", "f32[4]", body=ACTIVATION),
            sample("f32[B,4]", "f32[4]", step=2, body=ACTIVATION),
        ),
        errors=(
            error("a different type for x1", "f32[B,4]", "f32[3]", body=ACTIVATION),
            error("operands", "f32[B,4]", body=ACTIVATION),
            error("step is not valid", "f32[B,4]", "f32[4]", step=-1, body=ACTIVATION),
            error("needs", "f32[B,4]", "f32[4]"),
            error("body is not valid", "f32[B,4]", "f32[4]", body="x0"),
        ),
    ),
)
