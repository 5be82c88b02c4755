"""tiling: how NumPy runs regions: as loops over tiles that stay in the cache, on several threads.

    fused(x, w, b) { p = x @ w; a = p + b; y = max(a, 0) }   →   p = x @ w; y = fused(p, b, step=64) { a = p + b; … }

What a region holds that can be divided along one axis (compiler/targets/numpy/division.py) stays a region, with the
number of indices to a tile as its `step`; the rest, such as its product and what is small, is taken out and runs as it
is. So is a region with too little work to share, and everything in the body of a scan, whose tensors are small and move
from step to step.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import VIEW
from compiler.ir.types import BYTES, TYPICAL_BATCH, TensorType, extent
from compiler.passes.rewriting import inside_scans, rebuild
from compiler.targets.numpy.division import divided_axis
from compiler.targets.numpy.fusion import kind_of, refusal
from compiler.targets.shared.regions import Region, find_regions, with_regions

MUCH_WORK = 400_000  # elements written: below, starting threads costs more than they save
TILE_BYTES = 2_000_000  # of the largest tensor in a tile: in smaller ones, threads wait for the interpreter too often
FEWEST_TILES = 2
LARGEST_TILE = 2**28  # bytes of the largest tensor in a tile of one index: no machine has a cache for that


def tile(graph: Graph) -> Graph:
    """See the file's docstring."""
    graph = inside_scans(graph, inlined)

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if node.op.name != "fused" or node.attributes["step"]:
            return None
        return builder.inline(with_tiles(node.body), operands)

    return rebuild(with_tiles(graph), rule)


def inlined(graph: Graph) -> Graph:
    """The graph without regions."""

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        return builder.inline(node.body, operands) if node.op.name == "fused" else None

    return rebuild(inside_scans(graph, inlined), rule)


def with_tiles(graph: Graph) -> Graph:
    """The graph with the divisible part of it as regions; nodes that stand alone count as regions of one."""
    kinds = {node: kind_of(node) for node in graph.nodes}

    def joins(source: Node, value: Value, reader: Node) -> bool:
        axes = kinds[reader].axes
        return axes is not None and not refusal(kinds[source], kinds[reader], reader.operands.index(value))

    regions = find_regions(graph.nodes, joins)
    inside = {node for region in regions for node in region}
    regions += [[node] for node in graph.nodes if node not in inside and kinds[node].axes is not None]
    return with_regions(graph, [region for region in regions if step_of(region)], step_of)


def step_of(region: Region) -> int:
    """How many indices of the divided axis make a tile: a divisor of its length; 0 if there is too little to share."""
    types = [result.type for node in region if VIEW not in node.op.traits for result in node.results]
    if sum(map(elements, types)) < MUCH_WORK:
        return 0
    largest = max(types, key=elements)
    axis = divided_axis(largest)
    length = largest.shape[axis] if axis is not None else 0
    if not isinstance(length, int) or length < 2:
        return 0
    for_each = elements(largest) * BYTES[largest.dtype] / length
    if for_each > LARGEST_TILE:
        return 0
    most = max(1, min(TILE_BYTES // for_each, length // FEWEST_TILES))
    return max(step for step in range(1, min(int(most), length - 1) + 1) if length % step == 0)


def elements(type: TensorType) -> int:
    return extent(type.shape).at(TYPICAL_BATCH)
