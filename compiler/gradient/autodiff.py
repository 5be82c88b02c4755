"""Reverse-mode differentiation of a graph. This is only the loop: every op has its own rule.

The gradients are appended to the graph of the forward nodes, in one sweep from the last node to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value, depending_on
from compiler.ir.op import ELEMENTWISE, GradientRule, Op
from compiler.ops.rules import sum_to

BODY_RULES: dict[str, GradientRule] = {}  # of ops with a body, by name: such a rule differentiates the body


class GradientError(AssertionError):
    """An op's gradient rule returned the wrong number or type of gradients: a bug in the rule."""


class NotDifferentiable(Exception):
    """The loss depends on a parameter through an op that has no gradient rule."""

    def __init__(self, node: Node):
        super().__init__(f"{node.op.name} cannot be differentiated")
        self.node = node


def gradient_of(name: str) -> Callable[[GradientRule], GradientRule]:
    """Registers the decorated function as the gradient rule of an op."""

    def register(rule: GradientRule) -> GradientRule:
        BODY_RULES[name] = rule
        return rule

    return register


def gradient_rule(op: Op) -> GradientRule | None:
    """The rule of an op; None if it cannot be differentiated."""
    return op.gradient or BODY_RULES.get(op.name)


def gradients(builder: Builder, seeds: Mapping[Value, Value], wrt: Sequence[Value]) -> list[Value | None]:
    """The gradient of `sum(seed * output)` with respect to each value of `wrt`; None if no output depends on it.

    seeds: output value -> its gradient (of the output's type), values of the builder's graph.
    """
    forward = list(builder.graph.nodes)
    active = depending_on(wrt, forward)
    adjoint: dict[Value, Value] = dict(seeds)
    for node in reversed(forward):
        results = [adjoint.get(result) for result in node.results]
        if not any(result is not None for result in results) or not any(operand in active for operand in node.operands):
            continue
        with builder.at(node.origin and node.origin.in_backward()):
            for operand, gradient in zip(node.operands, operand_gradients(builder, node, results), strict=True):
                if gradient is not None and operand in active and not isinstance(operand, Literal):
                    known = adjoint.get(operand)
                    adjoint[operand] = gradient if known is None else builder.add(known, gradient)
    return [adjoint.get(value) for value in wrt]


def operand_gradients(builder: Builder, node: Node, results: list[Value | None]) -> list[Value | None]:
    """Applies the op's rule, sums gradients back to the operands' shapes, and checks number and types."""
    rule = gradient_rule(node.op)
    if rule is None:
        raise NotDifferentiable(node)
    found = list(rule(builder, node, *results))
    if len(found) != len(node.operands):
        raise GradientError(f"{node.op.name}: {len(node.operands)} operands, {len(found)} gradients")
    if ELEMENTWISE in node.op.traits:
        pairs = zip(found, node.operands, strict=True)
        found = [
            gradient and (None if isinstance(operand, Literal) else sum_to(builder, gradient, operand.type))
            for gradient, operand in pairs
        ]
    for gradient, operand in zip(found, node.operands, strict=True):
        if gradient is not None and gradient.type != operand.type:
            raise GradientError(f"{node.op.name}: gradient {gradient.type} of an operand {operand.type}")
    return found


@gradient_of("fused")
def fused_gradient(builder: Builder, node: Node, *result_gradients: Value | None) -> list[Value | None]:
    """Another region that computes the forward values again, and the gradients from them."""
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
