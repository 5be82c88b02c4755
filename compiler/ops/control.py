"""`scan`, the only loop at run time: a body applied to every step of its sequences, with carries from step to step.

scan(*carries, *sequences, *constants, carries=int, sequences=int, reverse=bool, body=Graph)

The body's inputs are the carries, one step of each sequence (the leading axis T dropped) and the constants, in that
order. Its outputs are the next carries, then any number of per-step outputs. The results are the last carries, then the
per-step outputs stacked along a leading axis T, each at the position of its step; `reverse` runs T - 1 … 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Value
from compiler.ir.interpreter import reference_dtype, run
from compiler.ir.op import BATCH, LOOP, REQUIRED, Op, error, expect_count, sample
from compiler.ir.types import TensorType, TypeRuleError, at_batch, parse_type
from compiler.ops.rules import expect_integer, show_attribute

RunBody = Callable[[Graph, list[np.ndarray], int], list[np.ndarray]]


def infer_scan(
    types: Sequence[TensorType], carries: int, sequences: int, reverse: bool, body: Graph
) -> Sequence[TensorType]:
    expect_integer("the number of carries", carries)
    expect_integer("the number of sequences", sequences, least=1)
    expect_body(body)
    expect_count(types, len(body.inputs))
    if len(types) < carries + sequences or len(body.outputs) < carries:
        found = f"{len(types)} operands and {len(body.outputs)} outputs of the body"
        expected = f"{carries} carries and {sequences} sequences"
        raise TypeRuleError("the scan has too few operands or results", expected, found)
    stacks = types[carries : carries + sequences]
    if any(not stack.rank or stack.shape[0] != stacks[0].shape[0] for stack in stacks):
        found = " and ".join(map(str, stacks))
        raise TypeRuleError("the sequences differ in length", "the same leading axis for all", found)
    given = [*types[:carries], *(stack.with_shape(stack.shape[1:]) for stack in stacks), *types[carries + sequences :]]
    for value, type in zip(body.inputs, given, strict=True):
        if value.type != type:
            raise TypeRuleError(
                f"the body of the scan expects a different type for {value.name}", str(value.type), str(type)
            )
    outputs = [output.type for output in body.outputs.values()]
    for value, type in zip(body.inputs[:carries], outputs, strict=False):
        if value.type != type:
            raise TypeRuleError(f"the carry {value.name} changes its type in the body", str(value.type), str(type))
    length = stacks[0].shape[0]
    return [*outputs[:carries], *(type.with_shape((length, *type.shape)) for type in outputs[carries:])]


def expect_body(body: object) -> None:
    if not isinstance(body, Graph):
        raise TypeRuleError("the body is not valid", "a graph", show_attribute(body))


def scan(
    *arrays: np.ndarray, carries: int, sequences: int, reverse: bool, body: Graph, batch: int, run: RunBody = run
) -> list[np.ndarray]:
    """The reference; `run(body, arrays, batch)` runs one step."""
    carried, steps, constants = arrays[:carries], arrays[carries : carries + sequences], arrays[carries + sequences :]
    length = len(steps[0])
    types = [output.type for output in list(body.outputs.values())[carries:]]
    stacks = [np.empty((length, *at_batch(type.shape, batch)), reference_dtype(type)) for type in types]
    for t in range(length - 1, -1, -1) if reverse else range(length):
        results = run(body, [*carried, *(np.asarray(sequence[t]) for sequence in steps), *constants], batch)
        carried = results[:carries]
        for stack, result in zip(stacks, results[carries:], strict=True):
            stack[t] = result
    return [*carried, *stacks]


def body(inputs: str, outputs: Callable[..., Sequence[Value]]) -> Callable[[], Graph]:
    """For samples: makes bodies from inputs like "h: f32[]; x: f32[]" and a function (builder, *inputs) -> outputs."""

    def make() -> Graph:
        graph = Graph("body")
        builder = Builder(graph)
        for declaration in inputs.split("; "):
            name, type = declaration.split(": ")
            builder.input(name, parse_type(type), "")
        graph.outputs = {f"y{i}": value for i, value in enumerate(outputs(builder, *graph.inputs))}
        return graph

    return make


def plus(builder: Builder, a: Value, b: Value | int) -> Value:
    return builder.add(a, b)


def recurrent(builder: Builder, h: Value, x: Value, w: Value, u: Value) -> list[Value]:
    """h' = tanh(x w + h u), also the per-step output."""
    h = builder.tanh(plus(builder, builder.matmul(x, w), builder.matmul(h, u)))
    return [h, h]


def gated(builder: Builder, h: Value, c: Value, x: Value, k: Value) -> list[Value]:
    """Two carries and a `select` between them; the per-step outputs include a carry and a bool."""
    c = builder.mul(builder.sin(c), builder.mul(x, k))
    h_next = builder.select(builder.lt(h, x), builder.mul(h, c), builder.sub(x, h))
    return [h_next, c, h, builder.lt(x, c), builder.mul(c, x)]


def nested(builder: Builder, h: Value, rows: Value, k: Value) -> list[Value]:
    """A scan over the rows of the step, starting from the carry; its last carry is the next carry."""
    inner = body("g: f32[2]; x: f32[2]; k: f32[2]", lambda b, g, x, k: [b.tanh(b.mul(b.sub(g, x), k)), b.mul(g, x)])
    last, products = builder.scan(h, rows, k, carries=1, sequences=1, reverse=True, body=inner())
    return [last, builder.sum(products, axes=(0,))]


def loop(carries: int, sequences: int, inputs: str, outputs: Callable[..., Sequence[Value]]) -> dict[str, Any]:
    """For samples: the attributes of a scan with such a `body`."""
    return {"carries": carries, "sequences": sequences, "body": body(inputs, outputs)}


LITERAL = Literal(TensorType("f32"), value=0.5)
SUM = loop(1, 1, "h: f32[2]; x: f32[2]", lambda b, h, x: [h := plus(b, h, x), h])
RECURRENT = loop(1, 1, "h: f32[B,3]; x: f32[B,2]; w: f32[2,3]; u: f32[3,3]", recurrent)
GATED = loop(2, 1, "h: f32[3]; c: f32[3]; x: f32[]; k: f32[3]", gated)
NESTED = loop(1, 1, "h: f32[2]; rows: f32[3,2]; k: f32[2]", nested)
NO_CARRY = loop(0, 2, "x: f32[2]; y: f64[]", lambda b, x, y: [b.exp(x), b.mul(y, y), x])
INTEGER = loop(1, 1, "n: i32[]; x: f32[]", lambda b, n, x: [plus(b, n, 1), b.mul(x, b.cast(n, dtype="f32"))])
# A carry that is replaced, one that stays, and an unused sequence and constant
KEPT = loop(
    2,
    2,
    "h: f32[]; c: f32[2]; x: f32[2]; n: i32[]; k: f32[]; m: f32[2]",
    lambda b, h, c, x, n, k, m: [k, c, b.mul(c, h)],
)
LITERALS = loop(1, 1, "h: f32[]; x: f32[]", lambda b, h, x: [LITERAL, b.mul(h, x), LITERAL])
# Refused
SHRINKING = loop(1, 1, "h: f32[2]; x: f32[2]", lambda b, h, x: [b.sum(h, axes=(0,))])
UNEQUAL = loop(0, 2, "x: f32[]; y: f32[]", lambda b, x, y: [x])
ONE_SHORT = loop(2, 1, "h: f32[2]; c: f32[2]; x: f32[]", lambda b, h, c, x: [h])

OPS = (
    Op(
        "scan",
        infer=infer_scan,  # the gradient rule is in compiler/gradient/scans.py
        reference=scan,
        attributes={"carries": REQUIRED, "sequences": REQUIRED, "reverse": False, "body": REQUIRED},
        traits=frozenset({BATCH, LOOP}),
        samples=(
            sample("f32[2]", "f32[4,2]", **SUM),
            sample("f32[2]", "f32[4,2]", **SUM, reverse=True),
            sample("f32[2]", "f32[1,2]", **SUM),
            sample("f32[2]", "f32[0,2]", **SUM),
            sample("f32[2]", "f32[B,2]", **SUM),
            sample("f32[B,3]", "f32[3,B,2]", "f32[2,3]", "f32[3,3]", **RECURRENT),
            sample("f32[B,3]", "f32[3,B,2]", "f32[2,3]", "f32[3,3]", **RECURRENT, reverse=True),
            sample("f32[3]", "f32[3]", "f32[4]", "f32[3]", **GATED),
            sample("f32[3]", "f32[3]", "f32[4]", "f32[3]", **GATED, reverse=True),
            sample("f32[2]", "f32[2,3,2]", "f32[2]", **NESTED),
            sample("f32[3,2]", "f64[3]", **NO_CARRY),
            sample("i32[]", "f32[3]", **INTEGER),
            sample("f32[]", "f32[2]", "f32[3,2]", "i32[3]", "f32[]", "f32[2]", **KEPT),
            sample("f32[]", "f32[3]", **LITERALS),
        ),
        errors=(
            error("carry h changes its type", "f32[2]", "f32[4,2]", **SHRINKING),
            error("a different type for h", "f32[3]", "f32[4,2]", **SUM),
            error("a different type for x", "f32[2]", "f32[4,3]", **SUM),
            error("a different type for k", "f32[3]", "f32[3]", "f32[4]", "f32[2]", **GATED),
            error("differ in length", "f32[2]", "f32[]", **SUM),
            error("differ in length", "f32[2]", "f32[3]", **UNEQUAL),
            error("operands", "f32[2]", **SUM),
            error("number of sequences is not valid", "f32[2]", "f32[2]", carries=2, sequences=0, body=SUM["body"]),
            error("too few operands or results", "f32[2]", "f32[4,2]", carries=1, sequences=2, body=SUM["body"]),
            error("too few operands or results", "f32[2]", "f32[2]", "f32[2]", **ONE_SHORT),
            error("needs", "f32[2]", "f32[4,2]", carries=1, sequences=1),
            error("body is not valid", "f32[2]", "f32[4,2]", carries=1, sequences=1, body=0),
            error("reverse is not valid", "f32[2]", "f32[4,2]", **SUM, reverse=1),
        ),
    ),
)
