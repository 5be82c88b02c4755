"""The gradient of `scan`: another scan that runs in the opposite direction.

    carries    gradients of the carries, and running sums for the gradients of the constants
    sequences  gradients of the per-step outputs, and the values of each forward step that the backward body needs
    constants  those of the forward scan that the backward body needs
    results    gradients of the first carries and of the constants; per step, gradients of the sequences

Values of a forward step that the backward body needs become additional per-step outputs of the forward scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from compiler.gradient.autodiff import depending_on, gradient_of, gradients
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value, needed_nodes
from compiler.ops.rules import zeros

# An input of the backward body, and the operand of the backward scan for it.
BodyInput = tuple[Value, Value]


@gradient_of("scan")
def scan_gradient(builder: Builder, node: Node, *result_gradients: Value | None) -> list[Value | None]:
    body, carries = node.body, node.attributes["carries"]
    constants = carries + node.attributes["sequences"]  # the position of the first one
    names = [value.name for value in body.inputs[:carries]] + list(body.outputs)[carries:]
    outputs = list(body.outputs.values())
    incoming = {i: Value(outputs[i].type, f"d_{names[i]}") for i in flowing(node, result_gradients)}
    inner, found = differentiate(builder, body, incoming)
    backward = inner.graph

    # The results of the backward body, and the first values of those that are carries.
    through = [i for i in incoming if i < carries]
    carried = [(incoming[i], result_gradients[i] or zeros(builder, incoming[i].type)) for i in through]
    results = [found.get(i) or zeros(inner, incoming[i].type) for i in through]
    summed = [i for i in found if i >= constants]
    for i in summed:
        total = Value(found[i].type, f"d_{body.inputs[i].name}")
        carried.append((total, zeros(builder, total.type)))
        results.append(inner.add(total, found[i]))
    per_step = [i for i in found if carries <= i < constants]
    backward.outputs = {f"y{i}": value for i, value in enumerate([*results, *(found[i] for i in per_step)])}
    if not backward.outputs:  # the values with a gradient do not depend on any operand
        return [None] * len(node.operands)
    backward.nodes = needed_nodes(backward.nodes, backward.outputs.values())

    # Its other inputs.
    stepped = [(incoming[i], gradient) for i, gradient in enumerate(result_gradients) if gradient and i >= carries]
    needed, fixed = import_forward_values(builder, node, backward, {value for value, _ in carried + stepped})
    stepped += needed
    if not stepped:  # the length of a scan is that of its sequences
        stepped.append((Value(body.inputs[carries].type, "step"), node.operands[carries]))
    inputs = [*carried, *stepped, *fixed]
    backward.inputs = [value for value, _ in inputs]
    label(backward.inputs, len(carried), len(stepped))
    attributes = {"carries": len(carried), "sequences": len(stepped), "reverse": not node.attributes["reverse"]}
    builder.scan(*(operand for _, operand in inputs), **attributes, body=backward)
    gradients = dict(zip([*through, *summed, *per_step], builder.graph.nodes[-1].results, strict=True))
    return [gradients.get(i) for i in range(len(node.operands))]


def flowing(node: Node, result_gradients: Sequence[Value | None]) -> list[int]:
    """Positions of the body's outputs with a gradient: from outside, or from a later step through a carry."""
    outputs = list(node.body.outputs.values())
    reached = [depending_on([value], node.body.nodes) for value in node.body.inputs[: node.attributes["carries"]]]
    found = {i for i, gradient in enumerate(result_gradients) if gradient}
    while more := {i for i, values in enumerate(reached) if any(outputs[j] in values for j in found)} - found:
        found |= more
    return sorted(i for i in found if outputs[i].type.is_float)


def differentiate(builder: Builder, body: Graph, incoming: Mapping[int, Value]) -> tuple[Builder, dict[int, Value]]:
    """A builder of the backward body, which still uses values of the forward body, and the gradients by input position.

    Differentiates in place and then moves the new nodes, so that scans inside the body keep their added outputs.
    """
    forward, first = Builder(body), len(body.nodes)
    forward.origin = builder.origin
    seeds: dict[Value, Value] = {}
    for i, output in enumerate(body.outputs.values()):
        if i in incoming and not isinstance(output, Literal):
            seeds[output] = forward.add(seeds[output], incoming[i]) if output in seeds else incoming[i]
    floats = [i for i, value in enumerate(body.inputs) if value.type.is_float]
    found = zip(floats, gradients(forward, seeds, [body.inputs[i] for i in floats]), strict=True)

    backward = Builder(Graph(f"{body.name}_backward", nodes=body.nodes[first:]))
    backward.origin = builder.origin
    del body.nodes[first:]
    return backward, {i: gradient for i, gradient in found if gradient}


def import_forward_values(
    builder: Builder, node: Node, backward: Graph, own: set[Value]
) -> tuple[list[BodyInput], list[BodyInput]]:
    """Replaces values of the forward body in the backward body by new inputs: sequences, and constants."""
    inputs, carries = node.body.inputs, node.attributes["carries"]
    constants = carries + node.attributes["sequences"]
    own = own.union(*(step.results for step in backward.nodes))
    used = [operand for step in backward.nodes for operand in step.operands] + list(backward.outputs.values())
    foreign = list(dict.fromkeys(value for value in used if value not in own and not isinstance(value, Literal)))
    copies = {value: Value(value.type, value.name) for value in foreign}
    for step in backward.nodes:
        step.operands = [copies.get(operand, operand) for operand in step.operands]
    backward.outputs = {name: copies.get(value, value) for name, value in backward.outputs.items()}

    outside = dict(zip(inputs[carries:], node.operands[carries:], strict=True))
    kept = [value for value in foreign if value not in outside]
    outside |= zip(kept, stacked(builder, node, kept), strict=True)
    fixed = [value for value in foreign if value in inputs[constants:]]
    return (
        [(copies[value], outside[value]) for value in foreign if value not in fixed],
        [(copies[value], outside[value]) for value in fixed],
    )


def stacked(builder: Builder, node: Node, values: Sequence[Value]) -> list[Value]:
    """The results of the scan that stack these values of its body; added if it does not return them yet."""
    carries = node.attributes["carries"]
    known = dict(zip(list(node.body.outputs.values())[carries:], node.results[carries:], strict=True))
    missing = [value for value in values if value not in known]
    known |= zip(missing, builder.extend_scan(node, missing), strict=True)
    return [known[value] for value in values]


def label(inputs: Sequence[Value], carries: int, sequences: int) -> None:
    """Gives the inputs of a body their kinds and distinct names."""
    used: set[str] = set()
    for i, value in enumerate(inputs):
        value.kind = "carry" if i < carries else "sequence" if i < carries + sequences else "constant"
        name = value.name or "kept"
        value.name = next(new for n in count() if (new := f"{name}_{n}" if n else name) not in used)
        used.add(value.name)
