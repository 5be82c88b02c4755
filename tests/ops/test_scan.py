"""`scan` in cases that single samples do not cover: order, sharing of kept values, unused results, nesting."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.gradient.autodiff import gradients
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.interpreter import interpret
from compiler.ir.types import parse_type
from compiler.ir.verifier import verify_graph
from compiler.ops.control import body

RUNNING = body("h: f64[]; x: f64[]; k: f64[]", lambda b, h, x, k: [h := b.tanh(b.mul(b.sub(x, h), k)), h])


def build(*inputs: str) -> tuple[Builder, list[Value]]:
    builder = Builder(Graph("test"))
    return builder, [builder.input(f"x{i}", parse_type(text), "input") for i, text in enumerate(inputs)]


def scans(graph: Graph) -> list[Node]:
    return [node for node in graph.walk() if node.op.name == "scan"]


def run(builder: Builder, outputs: list[Value], *arrays: object, batch: int = 1) -> list[np.ndarray]:
    builder.graph.outputs = {f"y{i}": value for i, value in enumerate(outputs)}
    verify_graph(builder.graph, "building")
    return list(interpret(builder.graph, {f"x{i}": array for i, array in enumerate(arrays)}, batch).values())


@pytest.mark.parametrize("reverse, expected", [(False, [1.0, 3.0, 6.0]), (True, [6.0, 5.0, 3.0])])
def test_per_step_outputs_are_at_their_step(reverse: bool, expected: list[float]):
    builder, (h, x) = build("f64[]", "f64[3]")
    total = body("h: f64[]; x: f64[]", lambda b, h, x: [h := b.sub(h, b.neg(x)), h])
    last, steps = builder.scan(h, x, carries=1, sequences=1, reverse=reverse, body=total())
    last, steps = run(builder, [last, steps], 0.0, [1.0, 2.0, 3.0])
    assert last == 6.0
    np.testing.assert_array_equal(steps, expected)


def test_zero_steps_return_the_carry():
    builder, (h, x, k) = build("f64[]", "f64[B]", "f64[]")
    results = builder.scan(h, x, k, carries=1, sequences=1, body=RUNNING())
    last, steps = run(builder, results, 0.5, [], 2.0, batch=0)
    assert last == 0.5 and steps.shape == (0,)


def test_a_kept_value_that_is_returned_already_is_not_returned_twice():
    builder, (h, x, k) = build("f64[]", "f64[3]", "f64[]")
    _, steps = builder.scan(h, x, k, carries=1, sequences=1, body=RUNNING())
    (forward,) = scans(builder.graph)
    gradients(builder, {steps: x}, [h, x, k])
    returned = list(forward.body.outputs.values())[1:]
    assert len(returned) == len(set(returned))
    results = len(forward.results)
    gradients(builder, {steps: x}, [h, x, k])
    assert len(forward.results) == results


def test_kept_values_take_free_names():
    builder, (h, x, k) = build("f64[]", "f64[3]", "f64[]")
    graph = RUNNING()
    first, second = graph.outputs.values()
    graph.outputs = {"y3": first, "y2": second}
    _, steps = builder.scan(h, x, k, carries=1, sequences=1, body=graph)
    gradients(builder, {steps: x}, [k])
    assert len(graph.outputs) == len(scans(builder.graph)[0].results) > 2
    verify_graph(builder.graph, "differentiation")


def test_a_carry_without_gradient_is_not_carried_back():
    """The second carry is a counter, and nothing that has a gradient depends on it."""
    builder, (h, c, x) = build("f64[]", "f64[]", "f64[3]")
    step = body("h: f64[]; c: f64[]; x: f64[]", lambda b, h, c, x: [b.mul(h, x), b.sub(c, x), b.mul(c, c)])
    last, _, _ = builder.scan(h, c, x, carries=2, sequences=1, body=step())
    found = gradients(builder, {last: h}, [h, c, x])
    assert found[1] is None
    backward = scans(builder.graph)[1]
    assert backward.attributes["carries"] == 1 and backward.attributes["sequences"] == 2
    slopes = run(builder, [found[0], found[2]], 2.0, 0.0, [3.0, 4.0, 5.0])  # type: ignore[list-item]
    np.testing.assert_allclose(slopes[0], 2.0 * 60.0)
    np.testing.assert_allclose(slopes[1], [2.0 * 40.0, 2.0 * 30.0, 2.0 * 24.0])


def test_the_gradient_of_the_last_carry_alone_needs_no_stack_of_zeros():
    builder, (h, x, k) = build("f64[]", "f64[3]", "f64[]")
    last, _ = builder.scan(h, x, k, carries=1, sequences=1, body=RUNNING())
    gradients(builder, {last: h}, [h, x, k])
    backward = scans(builder.graph)[1]
    kept = [operand for operand in backward.operands if operand.node is scans(builder.graph)[0]]
    assert len([v for v in backward.body.inputs if v.kind == "sequence"]) == len(kept) + (x in backward.operands)


def test_a_backward_body_that_needs_no_step_still_knows_its_length():
    builder, (h, x) = build("f64[]", "f64[4]")
    doubling = body("h: f64[]; x: f64[]", lambda b, h, x: [b.mul(h, 2.0)])
    last = builder.scan(h, x, carries=1, sequences=1, body=doubling())
    found = gradients(builder, {last: h}, [h, x])
    assert found[1] is None
    assert run(builder, [found[0]], 3.0, np.zeros(4)) == [48.0]  # type: ignore[list-item]


def test_three_nested_scans():
    """The gradient of a scan in a scan in a scan, against differences."""

    def middle(b: Builder, h: Value, x: Value, k: Value) -> list[Value]:
        last, steps = b.scan(h, x, k, carries=1, sequences=1, body=RUNNING())
        return [last, b.sum(steps, axes=(0,))]

    def outer(b: Builder, h: Value, x: Value, k: Value) -> list[Value]:
        inner = body("h: f64[]; x: f64[2]; k: f64[]", middle)
        last, steps = b.scan(h, x, k, carries=1, sequences=1, reverse=True, body=inner())
        return [last, b.mul(last, b.sum(steps, axes=(0,)))]

    builder, inputs = build("f64[]", "f64[2,3,2]", "f64[]")
    step = body("h: f64[]; x: f64[3,2]; k: f64[]", outer)
    last, steps = builder.scan(*inputs, carries=1, sequences=1, body=step())
    found = gradients(builder, {last: inputs[0], steps: builder.broadcast(inputs[2], shape=(2,))}, inputs)
    generator = np.random.default_rng(1)
    h, x, k = 0.3, generator.normal(size=(2, 3, 2)), 0.7
    slopes = run(builder, found, h, x, k)  # type: ignore[arg-type]

    def loss(h: float, x: np.ndarray, k: float) -> float:
        final, outputs = run(builder, [last, steps], h, x, k)
        return float(0.3 * final + 0.7 * outputs.sum())

    eps = 1e-6
    assert slopes[0] == pytest.approx((loss(h + eps, x, k) - loss(h - eps, x, k)) / (2 * eps), abs=1e-7)
    assert slopes[2] == pytest.approx((loss(h, x, k + eps) - loss(h, x, k - eps)) / (2 * eps), abs=1e-7)
    direction = generator.normal(size=x.shape)
    expected = (loss(h, x + eps * direction, k) - loss(h, x - eps * direction, k)) / (2 * eps)
    assert (slopes[1] * direction).sum() == pytest.approx(expected, abs=1e-7)
