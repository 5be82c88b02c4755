"""regions: nodes that one function in C can compute become a region, `fused`.

    a = f(x); b = g(a, y); c = sum(b)        →   b, c = fused(x, y) { a = f(x); b = g(a, y); c = sum(b) }
    p = x @ w; y = relu(p + b)               →   y = fused(x, w, b) { … }       computed of each tile of the product
    d = xᵀ @ dy; w = w - lr * d              →   w = fused(x, dy, w) { … }      the gradient is never in memory

    y = x + m in one region, z = f(y) in another   →   both compute x + m: x is in memory, and y need not be

A region is a map, a reduction (targets/c_text/regions.py), or a product or convolution with functions of its single
elements. Regions run in the order of their first nodes, but a parameter is updated after all that read its old value:
the update can then be made in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from compiler.ir.graph import VARIABLES, Graph, Literal, Node, Value
from compiler.ir.types import TYPICAL_BATCH
from compiler.targets.c.reductions import waits_too_long
from compiler.targets.c.tiles import has_tiles, is_tiled
from compiler.targets.c_text.grouping import Grouping, make_regions, reasons_of
from compiler.targets.c_text.regions import reduces, reduction_of
from compiler.targets.shared.regions import Region, after_sources

EXTRA_WORK = 200_000  # elements that may be computed twice
CHEAP = frozenset({"add", "sub", "mul", "neg", "max", "min", "clip", "select", "lt", "le", "eq", "and", "or", "not"})
CHEAP |= {"cast", "max_pool2d_route"}
MOST_AGAIN = 6  # nodes that are computed again
WORTH_IT = 1 << 16  # bytes of a value that is


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

    def __init__(self, graph: Graph, regions: Sequence[Region] | None = None):
        super().__init__(graph, regions)
        self.again: dict[int, set[Node]] = {}  # nodes of other groups that a group computes again
        self.dropped: set[Value] = set()  # values that all their readers compute again
        if regions is None:
            for nodes in list(self.members.values()):
                for value in self.read_outside(nodes):
                    self.try_again(value)

    def reads_memory(self, node: Node) -> bool:
        return has_tiles(node)

    # Values that are cheaper to compute again than to keep in memory

    def try_again(self, value: Value) -> None:
        """Lets the readers of a value compute it again if that moves fewer bytes."""
        found = self.cone(value) if typical_bytes(value) >= WORTH_IT else None
        users = self.users[value]
        if found is None or None in users:
            return
        nodes, inputs = found
        own = next(self.group[node] for node in nodes if value in node.results)
        readers = {self.group[user] for user in users if user is not None} - {own}
        cost, size = 0, typical_bytes(value)
        for reader in readers:
            members = self.members[reader]
            if (self.is_single(members) and members[0].op.name in self.alone) or any(map(has_tiles, members)):
                return
            read = {operand for node in self.with_free(members) for operand in node.operands}
            cost += sum(typical_bytes(each) for each in inputs if each not in read)
            body = self.with_free({*members, *nodes, *self.again.get(reader, ())})
            outputs = {str(i): each for i, each in enumerate(self.read_outside(members))}
            if any(map(reduces, members)) and reduction_of(body, outputs) is None:
                return
        if cost >= size * (1 + len(readers)):
            return
        self.dropped.add(value)
        for reader in readers:
            self.again.setdefault(reader, set()).update(nodes)
            sources = {self.group[node] for node in self.read_by(nodes)} - {reader}
            self.sources[reader] |= sources

    def cone(self, value: Value) -> tuple[set[Node], set[Value]] | None:
        """The few cheap nodes that compute a value from others in memory, and these; None if it is not so."""
        group = self.group[value.node] if value.node else -1
        stored = {*self.read_outside(self.members[group])} - self.dropped - {value}
        nodes: set[Node] = set()
        inputs: set[Value] = set()
        pending = [value]
        while pending:
            node = pending.pop().node
            if node is None or node in nodes:
                continue
            if node not in self.free:
                if node.op.name not in CHEAP or len(nodes) == MOST_AGAIN:
                    return None
                nodes.add(node)
            for operand in node.operands:
                if isinstance(operand, Literal):
                    continue
                inside = operand.node in self.free or (operand.node in self.group and self.group[operand.node] == group)
                if inside and operand not in stored:
                    pending.append(operand)
                elif operand in self.dropped:
                    return None
                else:
                    inputs.add(operand)
        return nodes, inputs

    def is_single(self, nodes: Sequence[Node]) -> bool:
        return super().is_single(nodes) and not self.again.get(self.group[nodes[0]])

    def emit(self, node: Node) -> None:
        if not self.dropped.issuperset(node.results):
            super().emit(node)

    def emit_region(self, nodes: Sequence[Node]) -> None:
        results = [value for value in self.read_outside(nodes) if value not in self.dropped]
        if results:
            self.emit_body({*nodes, *self.again.get(self.group[nodes[0]], ())}, results, nodes[0].origin)

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


def typical_bytes(value: Value) -> int:
    """The size of a tensor at a typical batch."""
    return value.type.bytes_at(TYPICAL_BATCH)


def regions(graph: Graph) -> Graph:
    """See the file's docstring. Existing regions are inlined first."""
    return make_regions(Regions, graph)


def reasons(graph: Graph, regions: Sequence[Region], in_scan: bool) -> Callable[[Node, Value, Node], str]:
    """Why two neighbours of a graph are not in one of its regions."""
    return reasons_of(Regions, graph, regions)
