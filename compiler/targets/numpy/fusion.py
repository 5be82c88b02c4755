"""fusion: nodes that can run as one become a region, `fused`.

    a = f(x); b = g(a, y); c = sum(b)        →   b, c = fused(x, y) { a = f(x); b = g(a, y); c = sum(b) }
    a = x @ w; b = a + c; d = max(b, 0)      →   d = fused(x, w, c) { … }      products take their epilogues

Joined are nodes that are divisible along the same axis (compiler/targets/numpy/division.py), so that the parts stay in
the cache while all of them run, reductions and pooling included; and nodes on small tensors with each other, whose cost
is their number. A product, whose result is read by one region alone, belongs to that region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.ir.graph import Graph, Node, Value, readers_of
from compiler.ir.op import ELEMENTWISE, VIEW
from compiler.ir.types import extent
from compiler.passes.rewriting import inside_scans
from compiler.targets.numpy.division import SHARED, Axes, operand_axes
from compiler.targets.shared.regions import Region, find_regions, with_regions

SMALL = 64  # elements, for each example if there is a batch
PRODUCTS = ("matmul", "conv2d", "conv2d_input_grad", "conv2d_filter_grad")
SMALL_OPS = ("sum", "sum_of_products", "reduce_max", "argmax", "iota", "extent")


@dataclass(frozen=True)
class Kind:
    """How a node takes part in fusion: divided along an axis, on small tensors as a whole, or not at all and why."""

    axes: Axes | None = None  # of the parts of its operands
    small: bool = False
    refusal: str = ""


def fuse(graph: Graph) -> Graph:
    """See the file's docstring."""
    graph = inside_scans(graph, fuse)
    return with_regions(graph, regions_of(graph), step=lambda region: 0)


def regions_of(graph: Graph) -> list[Region]:
    kinds = {node: kind_of(node) for node in graph.nodes}

    def joins(source: Node, value: Value, reader: Node) -> bool:
        return not refusal(kinds[source], kinds[reader], reader.operands.index(value))

    found = find_regions(graph.nodes, joins)
    inside = {node for region in found for node in region}
    found += [[node] for node in graph.nodes if node not in inside and not kinds[node].refusal]  # may take a product
    return [region for region in with_products(graph, found) if sum(VIEW not in node.op.traits for node in region) > 1]


def kind_of(node: Node) -> Kind:
    types = [value.type for value in (*node.operands, *node.results)]
    small = all(extent(type.shape).factor <= SMALL and extent(type.shape).power <= 1 for type in types)
    along_batch = any(extent(type.shape).power for type in types) or not any(type.rank for type in types)
    axes = operand_axes(node)
    if axes is not None and not (small and along_batch):
        return Kind(axes)
    simple = ELEMENTWISE in node.op.traits or VIEW in node.op.traits or node.op.name in SMALL_OPS
    if small and simple:
        return Kind(small=True)
    if simple:
        return Kind(refusal=f"{node.op.name} cannot be divided along the axis of its parts")
    if node.op.name in PRODUCTS:
        return Kind(refusal=f"{node.op.name} takes its epilogue only where one region alone reads it")
    return Kind(refusal=f"{node.op.name} runs alone")


def refusal(source: Kind, reader: Kind, position: int) -> str:
    """Why two nodes may not be in one region; empty if they may. `position`: of the value among the operands."""
    if source.refusal or reader.refusal:
        return source.refusal or reader.refusal
    if source.small != reader.small:
        return "one is divided into parts, the other works on a small tensor as a whole"
    if reader.axes is not None and reader.axes[position] == SHARED:
        return "every part of the reader needs the whole of it"
    return ""


def with_products(graph: Graph, regions: Sequence[Region]) -> list[Region]:
    """Each region with the products (and views of them) that nothing outside of it reads."""
    number = {node: i for i, region in enumerate(regions) for node in region}
    readers = readers_of(graph)
    for node in graph.nodes:
        if node.op.name in PRODUCTS:
            views, last = reading_views(node, readers, number)
            homes = {-1 if reader is None else number.get(reader, -1) for reader in last}
            if len(homes) == 1 and -1 not in homes:
                number |= dict.fromkeys([node, *views], *homes)
    grown: list[Region] = [[] for _ in regions]
    for node in graph.nodes:
        if node in number:
            grown[number[node]].append(node)
    return grown


def reading_views(
    node: Node, readers: dict[Value, list[Node | None]], number: dict[Node, int]
) -> tuple[list[Node], list[Node | None]]:
    """The views of a node's result outside of regions, and the nodes that read it or them; None for the graph."""
    views: list[Node] = []
    last: list[Node | None] = []
    pending = list(readers[node.result])
    while pending:
        reader = pending.pop()
        if reader is not None and reader not in number and VIEW in reader.op.traits:
            views.append(reader)
            pending += readers[reader.result]
        else:
            last.append(reader)
    return views, last
