"""Forming regions: groups of nodes that grow along their edges as long as a target can run each as one.

Views, indices and scalars that do not depend on a reduction cost nothing: they are computed again in every region that
reads them. A target says what fits into a region (`Grouping.fits`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value, needed_nodes, readers_of
from compiler.ir.op import CONVOLUTION, ELEMENTWISE, IN_ORDER, VIEW
from compiler.ir.types import Shape
from compiler.passes.rewriting import inside_scans
from compiler.targets.c_text.regions import loop_shape, swaps_last_axes, typical
from compiler.targets.shared.regions import Region, after_sources, body_with, without_regions

MOST_TRIES = 4  # groups without readers that another one is tried with
MOST_STEPS = 400  # before the search for a path gives up
FREE = "costs nothing, and is computed wherever it is read"
LEFT_OUT = "the pass that makes regions does not run"
EARLIER = "it runs in the region of an earlier reader"


class Grouping(ABC):
    """The nodes of a graph in groups, which grow as long as each can run as one region."""

    alone: Collection[str]  # names of ops that are never in a region with others
    most_nodes: int  # of a region: compiling it takes time
    most_arrays: int  # of a region: operands and results

    @abstractmethod
    def fits(self, one: int, other: int, nodes: Sequence[Node], region: Graph) -> str:
        """Why the nodes of two groups, together this region, cannot run as one; empty if they can."""

    def reads_memory(self, node: Node) -> bool:
        """Whether a node's operands have to be in memory, even if they cost nothing to compute."""
        return CONVOLUTION in node.op.traits

    def is_single(self, nodes: Sequence[Node]) -> bool:
        """Whether a group is left as the op that it is."""
        return nodes[0].op.name in self.alone or (len(nodes) == 1 and len(self.with_free(nodes)) == 1)

    def __init__(self, graph: Graph, regions: Sequence[Region] | None = None):
        """With `regions` the groups are these, and each node outside of them; else they are formed."""
        self.graph = graph
        self.position = {node: i for i, node in enumerate(graph.nodes)}
        self.readers = readers_of(graph)
        self.free: set[Node] = set()
        for node in graph.nodes:
            if self.is_free(node):
                self.free.add(node)
        self.users = self.all_users()
        self.group: dict[Node, int] = {}  # of every node that is not free
        self.members: dict[int, list[Node]] = {}
        self.sources: dict[int, set[int]] = {}  # groups that a group reads
        self.targets: dict[int, set[int]] = {}
        self.form(regions)

    def is_free(self, node: Node) -> bool:
        """Whether a node costs nothing to compute again: views, and values that depend on no tensor."""
        if VIEW in node.op.traits:
            return IN_ORDER in node.op.traits or not self.is_stored(node.result)
        scalar = ELEMENTWISE in node.op.traits and not node.result.type.shape
        if any(reader is None for value in node.results for reader in self.readers[value]):
            return False
        known = all(value.node is None or value.node in self.free for value in node.operands)
        return not node.operands or (scalar and known)

    def is_stored(self, value: Value) -> bool:
        """Whether a reader needs a value in memory, in reading order."""

        def stores(reader: Node | None) -> bool:
            if reader is None or reader.op.name == "matmul":
                return reader is None or value.node is None or not swaps_last_axes(value.node)
            if reader.op.name in self.alone or CONVOLUTION in reader.op.traits:
                return True
            return IN_ORDER in reader.op.traits and self.is_stored(reader.result)

        return any(map(stores, self.readers[value]))

    def all_users(self) -> dict[Value, set[Node | None]]:
        """The nodes that use a value, directly or through free nodes, but are not free; None for the graph outputs."""
        users: dict[Value, set[Node | None]] = {}
        for node in reversed(self.graph.nodes):
            for value in node.results:
                readers = self.readers[value]
                users[value] = {reader for reader in readers if reader not in self.free}
                users[value].update(*(users[reader.result] for reader in readers if reader in self.free))
        return users

    # Forming groups

    def form(self, regions: Sequence[Region] | None) -> None:
        for node in self.graph.nodes:
            if node not in self.free:
                self.add(node)
                if regions is None and node.op.name not in self.alone:
                    for source in sorted(self.sources[self.group[node]], reverse=True):
                        self.try_join(source, self.group[node])
        if regions is None:
            self.join_last()
        for region in regions or ():
            first, *others = [node for node in region if node not in self.free]
            for other in others:
                self.join(*sorted((self.group[first], self.group[other])))

    def add(self, node: Node) -> None:
        """A new group of one node."""
        number = self.position[node]
        self.group[node], self.members[number] = number, [node]
        self.sources[number] = {self.group[source] for source in self.read_by([node])}
        self.targets[number] = set()
        for source in self.sources[number]:
            self.targets[source].add(number)

    def read_by(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """The nodes that others read, directly or through free nodes, and that are not free."""
        pending = [value.node for node in nodes for value in node.operands if value.node]
        seen: set[Node] = set()
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self.free:
                pending += [value.node for value in node.operands if value.node]
            else:
                yield node

    def join_last(self) -> None:
        """Joins groups without readers, such as the updates of all parameters."""
        joined: list[int] = []
        for number in [number for number, targets in self.targets.items() if not targets]:
            partner = next((other for other in reversed(joined[-MOST_TRIES:]) if self.try_join(other, number)), None)
            if partner is None:
                joined.append(number)
            else:
                joined[joined.index(partner)] = min(partner, number)

    def try_join(self, one: int, other: int) -> bool:
        if one == other or self.refusal(one, other):
            return False
        self.join(min(one, other), max(one, other))
        return True

    def refusal(self, one: int, other: int) -> str:
        """Why two groups cannot be one; empty if they can."""
        for first in (self.members[one][0], self.members[other][0]):
            if first.op.name in self.alone:
                return f"{first.op.name} runs alone"
        if self.connected_around(one, other):
            return "a path between them leads through something that cannot be in the region"
        nodes = self.together(one, other)
        if len(nodes) > self.most_nodes:
            return f"a region has at most {self.most_nodes} nodes"
        body, results = self.with_free(nodes), self.read_outside(nodes)
        own = set(body)
        operands = {value for node in body for value in node.operands if value.node not in own}
        if len(operands) + len(results) > self.most_arrays:
            return f"a region has at most {self.most_arrays} arrays"
        region = Graph("region", list(operands), body, {str(i): value for i, value in enumerate(results)})
        return self.fits(one, other, nodes, region)

    def together(self, one: int, other: int) -> list[Node]:
        return sorted([*self.members[one], *self.members[other]], key=self.position.__getitem__)

    def join(self, kept: int, gone: int) -> None:
        nodes = self.together(kept, gone)
        for node in self.members.pop(gone):
            self.group[node] = kept
        self.members[kept] = nodes
        for edges, back in ((self.sources, self.targets), (self.targets, self.sources)):
            for each in edges.pop(gone) - {kept}:
                back[each].discard(gone)
                back[each].add(kept)
                edges[kept].add(each)
            edges[kept].discard(gone)

    def connected_around(self, one: int, other: int) -> bool:
        """Whether a path leads from one group to the other through a third, which rules out joining them."""
        for start, end in ((one, other), (other, one)):
            seen: set[int] = set()
            stack = [each for each in self.targets[start] if each != end]
            while stack:
                each = stack.pop()
                if each == end or len(seen) > MOST_STEPS:
                    return True
                if each not in seen:
                    seen.add(each)
                    stack += self.targets[each]
        return False

    # What one kernel can compute

    def work(self, nodes: Sequence[Node]) -> int:
        """The number of elements that a map computes; an element counts once for every loop shape that needs it."""
        inside, outputs = self.with_free(nodes), self.read_outside(nodes)
        own = set(inside)
        readers = {v: [reader if reader in own else None for reader in self.readers[v]] for v in outputs}
        by_shape: dict[Shape, list[Value]] = {}
        for value in outputs:
            by_shape.setdefault(loop_shape(value, readers), []).append(value)
        total = 0
        for shape, values in by_shape.items():
            computed = [node for node in needed_nodes(inside, values) if VIEW not in node.op.traits]
            total += sum(max(typical(shape), typical(node.results[0].type.shape)) for node in computed)
        return total

    def read_outside(self, nodes: Iterable[Node]) -> list[Value]:
        """The results that other nodes read, directly or through free nodes."""
        own = set(nodes)
        ordered = sorted(own, key=self.position.__getitem__)
        return [value for node in ordered for value in node.results if not self.users[value] <= own]

    def with_free(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes with all free nodes that they need."""
        found = set(nodes)
        pending = [node for node in found if not self.reads_memory(node)]
        while pending:
            for value in pending.pop().operands:
                if value.node in self.free and value.node not in found:
                    found.add(value.node)
                    pending.append(value.node)
        return sorted(found, key=self.position.__getitem__)

    # The new graph

    def result(self) -> Graph:
        """A copy of the graph with a `fused` node for each group, and free nodes that are read outside of groups."""
        result = Graph(self.graph.name, list(self.graph.inputs))
        self.builder = Builder(result)
        self.new: dict[Value, Value] = {}
        for number in self.running_order():
            nodes = self.members[number]
            if self.is_single(nodes):
                self.emit(nodes[0])
            elif self.read_outside(nodes):
                self.emit_region(nodes)
        result.outputs = {name: self.renamed(value) for name, value in self.graph.outputs.items()}
        return result

    def running_order(self) -> Iterator[int]:
        """The groups, each after those it reads; among groups that can run next, in the order of their last nodes."""
        last = {number: self.position[nodes[-1]] for number, nodes in self.members.items()}
        return after_sources(self.sources, last)

    def renamed(self, value: Value) -> Value:
        """A value in the new graph; free nodes are added there when first read."""
        if value.node in self.free and value not in self.new:
            self.emit(value.node)
        return self.new.get(value, value)

    def emit(self, node: Node) -> None:
        operands = [self.renamed(value) for value in node.operands]
        self.new |= zip(node.results, self.builder.emit_like(node, operands), strict=True)

    def emit_region(self, nodes: Sequence[Node]) -> None:
        results = self.read_outside(nodes)
        body, operands = body_with(self.with_free(nodes), results)
        with self.builder.at(nodes[0].origin):
            self.builder.emit("fused", [self.renamed(value) for value in operands], {"body": body})
        self.new |= zip(results, self.builder.graph.nodes[-1].results, strict=True)


def reasons_of(grouping: type[Grouping], graph: Graph, regions: Sequence[Region]) -> Callable[[Node, Value, Node], str]:
    """Why two neighbours of a graph are not in one of its regions."""
    groups = grouping(graph, regions)

    def reason(source: Node, value: Value, reader: Node) -> str:
        group = groups.group
        if source not in group or reader not in group:
            return FREE
        return groups.refusal(group[source], group[reader]) or (EARLIER if regions else LEFT_OUT)

    return reason


def make_regions(grouping: type[Grouping], graph: Graph) -> Graph:
    """The graph with regions, also in its scans. Existing regions are inlined first."""
    graph = inside_scans(without_regions(graph), lambda body: make_regions(grouping, body))
    return grouping(graph).result()
