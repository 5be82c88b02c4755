"""The work of running a node, from its types: bytes read and written, and operations on numbers.

Bytes are those that must be moved at least once: each operand and each result, however often a kernel reads them. For
a region these are its inputs and outputs, since the rest stays in the cache; for a scan, what its nodes move each step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import ELEMENTWISE, LOOP, VIEW
from compiler.ops.rules import no_operations, per_result
from compiler.planning.memory import scan_length


class Cost(NamedTuple):
    """Bytes read and written, and operations on numbers."""

    bytes: int
    operations: int


def cost_of(node: Node, batch: int) -> Cost:
    if "body" not in node.attributes:
        return Cost(bytes_moved(node, batch), operations(node, batch))
    inside = total(cost_of(each, batch) for each in node.body.nodes if VIEW not in each.op.traits)
    if LOOP in node.op.traits:
        steps = scan_length(node, batch)
        return Cost(steps * inside.bytes, steps * inside.operations)
    return Cost(bytes_moved(node, batch), inside.operations)


def total(costs: Iterable[Cost]) -> Cost:
    found = list(costs)
    return Cost(sum(cost.bytes for cost in found), sum(cost.operations for cost in found))


def bytes_moved(node: Node, batch: int) -> int:
    written = sum(result.type.bytes_at(batch) for result in node.results)
    if node.op.lookup:  # of the table, only the rows that are read
        _, indices = (node.operands[position] for position in node.op.lookup)
        return indices.type.bytes_at(batch) + 2 * written
    read = {source_of(operand) for operand in node.operands}
    return written + sum(value.type.bytes_at(batch) for value in read if not isinstance(value, Literal))


def source_of(value: Value) -> Value:
    """The tensor that a broadcast reads."""
    while value.node and value.node.op.name == "broadcast":
        value = value.node.operands[0]
    return value


def operations(node: Node, batch: int) -> int:
    """Additions, multiplications, comparisons and functions, each counted as one."""
    rule = node.op.cost or (per_result if ELEMENTWISE in node.op.traits else no_operations)
    return rule([value.type for value in node.operands], [value.type for value in node.results], batch)
