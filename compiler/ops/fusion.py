"""`fused`: a region of a graph as one node. Passes make it; what it computes is what its body computes.

fused(*operands, step=int, body=Graph)

The body's inputs are the operands, its outputs the results, all whole tensors. `step` is how a target that divides its
work runs the region: so many indices of the divided axis at a time (see compiler/targets/numpy/division.py), 0 for all
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compiler.ir.op import BATCH, REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import TensorType, TypeRuleError
from compiler.ops.control import body, expect_body
from compiler.ops.rules import expect_integer

if TYPE_CHECKING:
    from compiler.ir.builder import Builder
    from compiler.ir.graph import Graph, Node, Value


def infer_fused(types: Sequence[TensorType], step: int, body: Graph) -> Sequence[TensorType]:
    expect_integer("the step", step)
    expect_body(body)
    expect_count(types, len(body.inputs))
    for value, type in zip(body.inputs, types, strict=True):
        if value.type != type:
            raise TypeRuleError(f"the body does not take this as {value.name}", str(value.type), str(type))
    if not body.outputs:
        raise TypeRuleError("a fused region has no result", "at least 1 output of the body", "0")
    return [value.type for value in body.outputs.values()]


def fused(*arrays: np.ndarray, step: int, body: Graph, batch: int) -> list[np.ndarray]:
    from compiler.ir.interpreter import interpret

    names = (value.name for value in body.inputs)
    return list(interpret(body, dict(zip(names, arrays, strict=True)), batch).values())


def fused_gradient(builder: Builder, node: Node, *result_gradients: Value | None) -> list[Value | None]:
    """A region that computes the forward values again and from them the gradients."""
    from compiler.gradient.autodiff import gradients
    from compiler.ir.builder import Builder
    from compiler.ir.graph import Graph, Literal

    inner = Builder(Graph(node.body.name))
    inputs = [inner.input(f"x{i}", value.type, "") for i, value in enumerate(node.body.inputs)]
    seeds: dict[Value, Value] = {}
    given = []
    for output, gradient in zip(inner.inline(node.body, inputs), result_gradients, strict=True):
        if gradient is not None and not isinstance(output, Literal):
            seed = inner.input(f"x{len(inner.graph.inputs)}", gradient.type, "")
            seeds[output] = inner.add(seeds[output], seed) if output in seeds else seed
            given.append(gradient)
    found = {i: value for i, value in enumerate(gradients(inner, seeds, inputs)) if value and inputs[i].type.is_float}
    inner.graph.outputs = {f"y{i}": value for i, value in enumerate(found.values())}
    if found:
        builder.fused(*node.operands, *given, body=inner.graph)
    results = dict(zip(found, builder.graph.nodes[-1].results, strict=False))
    return [results[i] if i in found else None for i in range(len(inputs))]


def activated(builder: Builder, x: Value, b: Value) -> list[Value]:
    """tanh(x + b), and its sum over the batch."""
    y = builder.tanh(builder.add(x, b))
    return [y, builder.sum(y, axes=(0,))]


ACTIVATION = body("x0: f32[B,4]; x1: f32[4]", activated)

OPS = (
    Op(
        "fused",
        infer=infer_fused,
        gradient=fused_gradient,
        reference=fused,
        attributes={"step": 0, "body": REQUIRED},
        traits=frozenset({BATCH}),
        samples=(
            sample("f32[B,4]", "f32[4]", body=ACTIVATION),
            sample("f32[B,4]", "f32[4]", step=2, body=ACTIVATION),
        ),
        errors=(
            error("does not take this as x1", "f32[B,4]", "f32[3]", body=ACTIVATION),
            error("operands", "f32[B,4]", body=ACTIVATION),
            error("step is not valid", "f32[B,4]", "f32[4]", step=-1, body=ACTIVATION),
            error("needs", "f32[B,4]", "f32[4]"),
            error("body is not valid", "f32[B,4]", "f32[4]", body="x0"),
        ),
    ),
)
