"""Which example of the batch an element of a tensor belongs to, for messages that name a row of the data."""

from __future__ import annotations

from compiler.ir.graph import Node, Value
from compiler.ir.types import Batch, extent

MOST_NODES = 10_000  # that are visited


def indices_per_example(value: Value) -> int:
    """The number of elements that each example has, one example after another; 0 if they may not be in this order."""
    shape = value.type.shape
    if not shape or not isinstance(shape[0], Batch) or any(isinstance(dim, Batch) for dim in shape[1:]):
        return 0
    seen, waiting = {value}, [value]
    while waiting:
        node = waiting.pop().node
        if node is None or not depends_on_examples(node):
            continue
        if reorders(node) or len(seen) > MOST_NODES:
            return 0
        new = [operand for operand in node.operands if operand not in seen]
        seen.update(new)
        waiting += new
    return extent(shape).factor


def depends_on_examples(node: Node) -> bool:
    """Whether a result has the batch in its shape."""
    return any(isinstance(dim, Batch) for result in node.results for dim in result.type.shape)


def reorders(node: Node) -> bool:
    """Whether the results may have the examples in another order than the operands, or not as their first axis."""
    name = node.op.name
    if any(result.type.shape and not isinstance(result.type.shape[0], Batch) for result in node.results):
        return True
    if name == "reshape":
        old, new = node.operands[0].type.shape, node.result.type.shape
        return not (old and isinstance(old[0], Batch)) or any(isinstance(dim, Batch) for dim in (*old[1:], *new[1:]))
    if name == "transpose":
        return node.attributes["permutation"][0] != 0
    if name == "flip":
        return 0 in node.attributes["axes"]
    return "body" in node.attributes or name == "scatter_add"
