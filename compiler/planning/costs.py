"""What running a node takes, counted from its types: bytes read and written, and operations on numbers.

Bytes are those that have to be moved once: each operand and each result, whatever a kernel reads again. Of a region
these are what comes in and what goes out, since the rest stays in the cache; of a scan, what its nodes move each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import ELEMENTWISE, VIEW
from compiler.ir.types import TensorType, extent
from compiler.planning.memory import scan_length


class Cost(NamedTuple):
    """Bytes read and written, and operations on numbers."""

    bytes: int
    operations: int


def cost_of(node: Node, batch: int) -> Cost:
    if "body" not in node.attributes:
        return Cost(bytes_moved(node, batch), operations(node, batch))
    inside = total(cost_of(each, batch) for each in node.body.nodes if VIEW not in each.op.traits)
    if node.op.name == "scan":
        steps = scan_length(node, batch)
        return Cost(steps * inside.bytes, steps * inside.operations)
    return Cost(bytes_moved(node, batch), inside.operations)


def total(costs: Iterable[Cost]) -> Cost:
    found = list(costs)
    return Cost(sum(cost.bytes for cost in found), sum(cost.operations for cost in found))


def bytes_moved(node: Node, batch: int) -> int:
    written = sum(result.type.bytes_at(batch) for result in node.results)
    if node.op.name == "gather":  # of the table, the rows that are taken
        return node.operands[1].type.bytes_at(batch) + 2 * written
    read = {source_of(operand) for operand in node.operands}
    return written + sum(value.type.bytes_at(batch) for value in read if not isinstance(value, Literal))


def source_of(value: Value) -> Value:
    """The tensor that is read where it was broadcast."""
    while value.node and value.node.op.name == "broadcast":
        value = value.node.operands[0]
    return value


def operations(node: Node, batch: int) -> int:
    """Additions, multiplications, comparisons and functions, each as one."""
    rule = OPERATIONS.get(node.op.name, for_each_result if ELEMENTWISE in node.op.traits else None)
    return rule(node, batch) if rule else 0


def for_each_result(node: Node, batch: int) -> int:
    return elements(node.results[0].type, batch)


def for_each_operand(node: Node, batch: int) -> int:
    return elements(node.operands[0].type, batch)


def elements(type: TensorType, batch: int) -> int:
    return extent(type.shape).at(batch)


def matrix_product(node: Node, batch: int) -> int:
    """2 m n k: a multiplication and an addition for each element of the result and of the sum behind it."""
    return 2 * elements(node.result.type, batch) * extent(node.operands[0].type.shape[-1:]).at(batch)


def convolution(output: Value, filters: Value, batch: int) -> int:
    """The same; the sum is over a window and the channels of a group. Filters are [kh, kw, channels, filters]."""
    return 2 * elements(output.type, batch) * extent(filters.type.shape[:3]).factor


Rule = Callable[[Node, int], int]
OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(("copy", "cast", "select"), lambda node, batch: 0),  # they move what is there
    **dict.fromkeys(("sum", "reduce_max", "argmax"), for_each_operand),
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_index"), for_each_operand),
    "max_pool2d_grad": for_each_result,
    "sum_of_products": lambda node, batch: 2 * for_each_operand(node, batch),
    "fold": for_each_operand,
    "scatter_add": lambda node, batch: elements(node.operands[1].type, batch),
    "matmul": matrix_product,
    "conv2d": lambda node, batch: convolution(node.result, node.operands[1], batch),
    "conv2d_input_grad": lambda node, batch: convolution(node.operands[0], node.operands[1], batch),
    "conv2d_filter_grad": lambda node, batch: convolution(node.operands[1], node.result, batch),
}
