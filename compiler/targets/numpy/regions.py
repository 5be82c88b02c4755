"""fusion: nodes that can be divided along one axis become a region that runs tile by tile, on several threads.

    a = x + b; y = max(a, 0)        →   y = fused(x, b, step=64) { a = x + b; y = max(a, 0) }

All nodes of a region run on one tile, a part of the tensors that stays in the cache, before they run on the next; NumPy
still makes one call per node. A node is in a region if it can be divided (division.py) along the axis of its
neighbours, which includes reductions and pooling. Nodes with too little work for several threads are not fused, and
neither are those in the body of a scan, whose tensors are small. Existing regions without a step are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import VIEW
from compiler.ir.types import BYTES, TYPICAL_BATCH, TensorType, extent
from compiler.targets.numpy.division import SHARED, Axes, divided_axis, operand_axes
from compiler.targets.shared.regions import (
    Region,
    find_regions,
    is_backward,
    path_around,
    with_regions,
    without_regions,
)

MUCH_WORK = 400_000  # elements written: below that, starting threads costs more than they save
TILE_BYTES = 2_000_000  # of the largest tensor in a tile: with smaller tiles, threads often wait for the interpreter
FEWEST_TILES = 2
LARGEST_TILE = 2**28  # bytes of the largest tensor in a tile of one index: more than any cache
SMALL = 64  # elements per example: a tile of so small a tensor is not worth a call


def fuse(graph: Graph) -> Graph:
    """See the file's docstring."""
    graph = without_regions(graph)
    axes = {node: axes_of(node) for node in graph.nodes}
    regions = candidates(graph.nodes, axes)
    return with_regions(graph, [region for region in regions if step_of(region)], step_of)


def candidates(nodes: Sequence[Node], axes: dict[Node, Axes | None]) -> list[Region]:
    """The regions, before checking that they have enough work; other divisible nodes are regions of one node."""

    def joins(source: Node, value: Value, reader: Node) -> bool:
        return not refusal(axes, source, value, reader)

    regions = find_regions(nodes, joins)
    inside = {node for region in regions for node in region}
    return regions + [[node] for node in nodes if node not in inside and axes[node] is not None]


def axes_of(node: Node) -> Axes | None:
    """The axes along which a node's operands are divided; None if the node is not divided."""
    shapes = [extent(value.type.shape) for value in (*node.operands, *node.results)]
    small = all(shape.factor <= SMALL and shape.power <= 1 for shape in shapes) and any(s.power for s in shapes)
    return None if small else operand_axes(node)


def refusal(axes: dict[Node, Axes | None], source: Node, value: Value, reader: Node) -> str:
    """Why a node and a reader of its result may not be in one region; empty if they may."""
    for node in (source, reader):
        if axes[node] is None:
            return why_not_divided(node)
    if axes[reader][reader.operands.index(value)] == SHARED:  # type: ignore[index]
        return "each tile of the reader needs the whole tensor"
    return ""


def why_not_divided(node: Node) -> str:
    """Why a node is not divided."""
    if operand_axes(node) is not None:
        return "small tensors: dividing them costs more than it saves"
    if all(divided_axis(result.type) is None for result in node.results):
        return "scalars, or one number per example: there is no axis to divide"
    return f"{node.op.name} cannot be divided along the axis of the tiles"


def step_of(region: Region) -> int:
    """The number of indices of the divided axis in a tile, a divisor of its length; 0 if there is too little work."""
    types = [result.type for node in region if VIEW not in node.op.traits for result in node.results]
    if sum(map(elements, types)) < MUCH_WORK:
        return 0
    largest = max(types, key=elements)
    axis = divided_axis(largest)
    length = largest.shape[axis] if axis is not None else 0
    if not isinstance(length, int) or length < 2:
        return 0
    bytes_per_index = elements(largest) * BYTES[largest.dtype] / length
    if bytes_per_index > LARGEST_TILE:
        return 0
    most = max(1, min(TILE_BYTES // bytes_per_index, length // FEWEST_TILES))
    return max(step for step in range(1, min(int(most), length - 1) + 1) if length % step == 0)


def elements(type: TensorType) -> int:
    return extent(type.shape).at(TYPICAL_BATCH)


# For the report -------------------------------------------------------------------------------------------------------

TOO_LITTLE = f"too little work for several threads: fewer than {MUCH_WORK:,} elements, or no axis to divide"
IN_SCAN = "in the body of a scan, where tensors are small"
DISABLED = "the pass fusion does not run"
BACKWARD = "kept for the backward pass, which starts after the whole forward pass"
BETWEEN = "a path between them goes through an op that cannot be in the region"
EARLIER = "already fused with an earlier reader"


def reasons(graph: Graph, regions: Sequence[Region], in_scan: bool) -> Callable[[Node, Value, Node], str]:
    """Why two neighbouring nodes of a graph are not in one region."""
    if in_scan:
        return lambda source, value, reader: IN_SCAN
    axes = {node: axes_of(node) for node in graph.nodes}
    found = candidates(graph.nodes, axes)
    home = {node: region for region in found for node in region}

    def reason(source: Node, value: Value, reader: Node) -> str:
        if refused := refusal(axes, source, value, reader):
            return refused
        if home[source] is home[reader]:
            return DISABLED if step_of(home[source]) else TOO_LITTLE
        if is_backward(reader) and not is_backward(source):
            return BACKWARD
        return BETWEEN if path_around(graph, source, reader) else EARLIER

    return reason
