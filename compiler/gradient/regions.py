"""The gradient of a fused region."""

from __future__ import annotations

from compiler.gradient.autodiff import gradient_of, gradients
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value


@gradient_of("fused")
def fused_gradient(builder: Builder, node: Node, *result_gradients: Value | None) -> list[Value | None]:
    """A region that computes the forward values again, and the gradients from them."""
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
