"""regions: nodes that one function in C can compute become a region, `fused`.

    a = f(x); b = g(a, y); c = sum(b)        →   b, c = fused(x, y) { a = f(x); b = g(a, y); c = sum(b) }
    p = x @ w; y = relu(p + b)               →   y = fused(x, w, b) { … }       computed of each tile of the product
    d = xᵀ @ dy; w = w - lr * d              →   w = fused(x, dy, w) { … }      the gradient is never in memory

A region is a map, a reduction (targets/c_text/regions.py), or a product or convolution with functions of its single
elements. Regions run in the order of their first nodes, but a parameter is updated after all that read its old value:
the update can then be made in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from compiler.ir.graph import VARIABLES, Graph, Node, Value
from compiler.targets.c.reductions import waits_too_long
from compiler.targets.c.tiles import has_tiles, is_tiled
from compiler.targets.c_text.grouping import Grouping, make_regions, reasons_of
from compiler.targets.c_text.regions import reduces, reduction_of
from compiler.targets.shared.regions import Region, after_sources

EXTRA_WORK = 200_000  # elements that may be computed twice


class Regions(Grouping):
    """Groups that one function computes."""

    alone = ("scan", "orthogonalize", "scatter_add", "random")
    most_nodes = 200
    most_arrays = 64

    def fits(self, one: int, other: int, nodes: Sequence[Node], region: Graph) -> str:
        if any(map(has_tiles, nodes)):
            views = [value.node for value in region.inputs if value.node in self.free]
            if not set(region.nodes).isdisjoint(self.read_by(views)):
                return "a product reads memory, so not a view of a value computed in its region"
            return "" if is_tiled(region) else "a product can only include functions of its single elements"
        if not any(map(reduces, nodes)):
            again = self.work(nodes) - self.work(self.members[one]) - self.work(self.members[other])
            return "too much would be computed twice" if again > EXTRA_WORK else ""
        reduction = reduction_of(region.nodes, region.outputs)
        if reduction is None:
            return "a region reduces one shape along the same axes, and its results have that shape or the reduced one"
        return "elements that depend on long sums would be computed by few threads" if waits_too_long(reduction) else ""

    def reads_memory(self, node: Node) -> bool:
        return has_tiles(node)

    def running_order(self) -> Iterator[int]:
        """The groups, each after those it reads, and after those that read a variable that it replaces."""
        first = {number: self.position[nodes[0]] for number, nodes in self.members.items()}
        sources = {number: set(found) for number, found in self.sources.items()}
        for number, readers in self.readers_of_replaced():
            sources[number] |= readers - {number}
        try:
            TopologicalSorter(sources).prepare()
        except CycleError:  # then some variables are copied
            sources = self.sources
        return after_sources(sources, first)

    def readers_of_replaced(self) -> Iterator[tuple[int, set[int]]]:
        """Groups that compute the new value of a variable, each with the groups that read the old one."""
        old = {value.name: value for value in self.graph.of_kind(*VARIABLES)}
        for name, value in self.graph.outputs.items():
            if name in old and value.node in self.group:
                readers = self.used_by(old[name])
                yield self.group[value.node], {self.group[reader] for reader in readers}

    def used_by(self, value: Value) -> set[Node]:
        """The nodes that read a value, directly or through free nodes."""
        found: set[Node] = set()
        for reader in self.readers[value]:
            if reader in self.free:
                found |= {node for each in reader.results for node in self.users[each] if node}
            elif reader is not None:
                found.add(reader)
        return found


def regions(graph: Graph) -> Graph:
    """See the file's docstring. Existing regions are inlined first."""
    return make_regions(Regions, graph)


def reasons(graph: Graph, regions: Sequence[Region], in_scan: bool) -> Callable[[Node, Value, Node], str]:
    """Why two neighbours of a graph are not in one of its regions."""
    return reasons_of(Regions, graph, regions)
