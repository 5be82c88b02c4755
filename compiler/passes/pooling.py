"""pooling: monotonic ops move after max pooling, where there are fewer elements; maxima are searched for once.

    max_pool2d(max(x, c))                            = max(max_pool2d(x), c)
    select(c < x, max_pool2d_grad(max(x, c), dy), 0) = max_pool2d_grad(x, select(c < max_pool2d(x), dy, 0))
    max_pool2d(x + b)                                = max_pool2d(x) + b
    max_pool2d_grad(x + b, dy)                       = max_pool2d_grad(x, dy)
    max_pool2d(x) … max_pool2d_grad(x, dy)           = y … max_pool2d_route(index, dy)
                                                       where y, index = max_pool2d_with_index(x)

c is a number, b the same for all pixels of an image; x - b is treated like x + b. The first four apply if nothing else
reads max(x, c) or x + b, which then disappear. The condition may also be c < max(x, c), which is equivalent.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value, literal_key, readers_of
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.rewriting import Rewrite, inside_scans, rebuild

Readers = dict[Value, list[Node | None]]
POOLING = ("max_pool2d", "max_pool2d_grad")


def pool_early(graph: Graph) -> Graph:
    """See the file's docstring."""
    graph = remove_dead_code(inside_scans(graph, pool_early))
    while (rule := first_rule(graph)) is not None:
        graph = remove_dead_code(rebuild(graph, rule))
    return rebuild(graph, with_index(graph))


def first_rule(graph: Graph) -> Rewrite | None:
    """The rule for the first node that can move after the pooling of its result."""
    readers = readers_of(graph)
    for node in graph.nodes:
        rule = rule_for_max(node, readers) if node.op.name == "max" else rule_for_offset(node, readers)
        if rule is not None:
            return rule
    return None


# max(x, c) ------------------------------------------------------------------------------------------------------------


def rule_for_max(node: Node, readers: Readers) -> Rewrite | None:
    """The first two equations, for the node max(x, c)."""
    x, c = node.operands[::-1] if isinstance(node.operands[0], Literal) else node.operands
    if not isinstance(c, Literal) or isinstance(x, Literal):
        return None
    found = [reader for value in (node.result, x) for reader in readers[value]]
    gates = {reader for reader in found if reader is not None and is_gate(reader, c)}
    pools = [reader for reader in readers[node.result] if reader not in gates]
    gradients = [reader for reader in pools if reader is not None and reader.op.name == "max_pool2d_grad"]
    masked = [*(gradient.result for gradient in gradients), *(g.result for g in gates if node.result in g.operands)]
    selects = [reader for value in masked for reader in readers[value]]
    if not pools or not all(pools_the_image(reader, node.result) for reader in pools):
        return None
    if not all(reader is not None and is_masked_gradient(reader, gradients, gates) for reader in selects):
        return None
    number = c.value

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if node in pools and node.op.name == "max_pool2d":
            return [builder.max(builder.max_pool2d(inner(operands[0]), **node.attributes), number)]
        if node in selects:
            gradient = operands[1].node
            assert gradient is not None
            image, dy = inner(gradient.operands[0]), gradient.operands[1]
            gate = builder.lt(number, builder.max_pool2d(image, **gradient.attributes))
            return [builder.max_pool2d_grad(image, builder.select(gate, dy, 0.0), **gradient.attributes)]
        return None

    return rule


def is_gate(node: Node, c: Literal) -> bool:
    """Whether a node is c < …"""
    return node.op.name == "lt" and literal_key(node.operands[0]) == literal_key(c)


def pools_the_image(node: Node | None, image: Value) -> bool:
    return node is not None and node.op.name in POOLING and image not in node.operands[1:]


def is_masked_gradient(node: Node, gradients: Sequence[Node], gates: set[Node]) -> bool:
    """Whether a node is select(gate, gradient, 0)."""
    if node.op.name != "select":
        return False
    gate, gradient, other = node.operands
    return gate.node in gates and gradient.node in gradients and isinstance(other, Literal) and other.value == 0


def inner(value: Value) -> Value:
    """x of max(x, c)."""
    assert value.node is not None
    return next(operand for operand in value.node.operands if not isinstance(operand, Literal))


# x + b ----------------------------------------------------------------------------------------------------------------


def rule_for_offset(node: Node, readers: Readers) -> Rewrite | None:
    """The next two equations, for a node x + b or x - b."""
    position = image_of_offset(node)
    pools = readers[node.result] if position is not None else []
    if not pools or not all(pools_the_image(reader, node.result) for reader in pools):
        return None

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if node not in pools:
            return None
        offset = operands[0].node
        assert offset is not None and position is not None
        terms = list(offset.operands)
        if node.op.name == "max_pool2d_grad":
            return [builder.max_pool2d_grad(terms[position], operands[1], **node.attributes)]
        terms[position] = builder.max_pool2d(terms[position], **node.attributes)
        return [builder.emit(offset.op.name, terms, {})]

    return rule


def image_of_offset(node: Node) -> int | None:
    """The position of x among the operands of x + b, b + x or x - b; None for all other nodes."""
    if node.op.name not in ("add", "sub") or node.result.type.rank != 4:
        return None
    positions = (0,) if node.op.name == "sub" else (0, 1)
    shape = node.result.type.shape
    return next(
        (i for i in positions if node.operands[i].type.shape == shape and is_uniform(node.operands[1 - i])), None
    )


def is_uniform(value: Value) -> bool:
    """Whether a value broadcast to images is the same for all pixels of an image."""
    shape = (1,) * (4 - value.type.rank) + value.type.shape
    return shape[1:3] == (1, 1)


# Indices --------------------------------------------------------------------------------------------------------------


def with_index(graph: Graph) -> Rewrite:
    """The last equation. If the pooling of a gradient is not in the graph, it is added."""
    wanted = {key(node, node.operands) for node in graph.nodes if node.op.name == "max_pool2d_grad"}
    made: dict[tuple[Value, str], list[Value]] = {}

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if node.op.name not in POOLING or key(node, node.operands) not in wanted:
            return None
        x = operands[0]
        if key(node, operands) not in made:
            made[key(node, operands)] = builder.max_pool2d_with_index(x, **node.attributes)
        y, index = made[key(node, operands)]
        if node.op.name == "max_pool2d":
            return [y]
        return [builder.max_pool2d_route(index, operands[1], input_size=x.type.shape[1:3], **node.attributes)]

    return rule


def key(node: Node, operands: Sequence[Value]) -> tuple[Value, str]:
    """Equal for equal poolings of one image."""
    return operands[0], repr(node.attributes)
