"""Memory placement for programs in C and CUDA: tensors in reading order; values inside a region are not in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compiler.ir.graph import Node, Value
from compiler.planning.memory import Planner
from compiler.planning.strides import Order, Strides, strides_in_order, view_strides
from compiler.targets.c_text.regions import read_at_own_place, swaps_last_axes


def natural_order(node: Node, index: int, strides: Mapping[Value, Strides]) -> Order:
    """Axes as in the model: kernels read and write in reading order."""
    return tuple(range(node.results[index].type.rank))


def useful_view(node: Node, strides: Strides, readers: Sequence[Node | None]) -> Strides | None:
    """Views with elements in reading order, and transposed ones for products, which accept both orders.

    Slices are copied: kernels read in packs, which begin at multiples of their size.
    """
    if node.op.name == "slice":
        return None
    found, shape = view_strides(node, strides), node.result.type.shape
    if found == strides_in_order(shape, tuple(range(len(shape)))):
        return found
    for_products = all(reader and reader.op.name == "matmul" for reader in readers)
    return found if for_products and swaps_last_axes(node) else None


def place_region(planner: Planner, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
    """A region that runs as one: only its results are in memory."""
    elementwise = read_at_own_place(node.body)

    def reads_in_place(node: Node, result: Value, value: Value) -> bool:
        """Whether the bytes of `value` are read element by element, and only through `value`."""
        shared = planner.sharing(node, value)
        pairs = zip(node.operands, node.body.inputs, strict=True)
        return all(operand is value and inner in elementwise for operand, inner in pairs if operand in shared)

    for index, result in enumerate(node.results):
        order = planner.placement.order(node, index, planner.strides)
        planner.place_result(node, result, order, replaced.get(result), position, reads_in_place)
    planner.own_scratch(node)
