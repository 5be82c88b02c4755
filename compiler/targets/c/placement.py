"""Memory placement for programs in C: products also read matrices whose last two axes are swapped in memory."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.graph import Node, Value
from compiler.ir.op import REGION
from compiler.planning.memory import Placement
from compiler.planning.strides import Strides, strides_in_order, view_strides
from compiler.targets.c_text.placement import natural_order, place_region
from compiler.targets.c_text.regions import swaps_last_axes


def useful_view(node: Node, strides: Strides, readers: Sequence[Node | None]) -> Strides | None:
    """Views with elements in reading order, and transposed ones that only products read."""
    if node.op.name == "slice":
        return None
    found, shape = view_strides(node, strides), node.result.type.shape
    if found == strides_in_order(shape, tuple(range(len(shape)))):
        return found
    if not swaps_last_axes(node) or strides != strides_in_order(node.operands[0].type.shape, tuple(range(len(shape)))):
        return None
    return found if all(reader and multiplies(reader, node.result) for reader in readers) else None


def multiplies(reader: Node, value: Value) -> bool:
    """Whether a node reads a value only as an operand of a matrix product."""
    if REGION not in reader.op.traits:
        return reader.op.name == "matmul"
    inner = {each for each, operand in zip(reader.body.inputs, reader.operands, strict=True) if operand is value}
    return all(node.op.name == "matmul" for node in reader.body.nodes if not inner.isdisjoint(node.operands))


PLACEMENT = Placement(lambda node: None, natural_order, useful_view, place_region)
