"""Code that fusion passes share: finding the regions of a graph, and turning each into one node.

A region is a connected set of nodes that may run as one: no path leaves it and comes back. Every node gets a stage
number, which stays the same along edges inside a region and grows along all other edges. Nodes of one stage that are
connected by fusable edges then form a region, since a path that leaves it ends at a higher stage. Stages are as late as
the readers allow, so that what only the backward pass reads is computed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import TypeVar

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value, needed_nodes
from compiler.ir.op import REGION, VIEW
from compiler.passes.rewriting import inside_scans, rebuild, with_operands

Joins = Callable[[Node, Value, Node], bool]  # (producer, value, reader): whether they may be in one region
Region = list[Node]
Unit = TypeVar("Unit")


def find_regions(nodes: Sequence[Node], joins: Joins) -> list[Region]:
    """The regions of two or more nodes, each in running order."""
    stages = latest_stages(nodes, earliest_stages(nodes, joins), joins)
    parent: dict[Node, Node] = {node: node for node in nodes}

    def root(node: Node) -> Node:
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in nodes:
        for value in node.operands:
            source = value.node
            if source in stages and stages[source] == stages[node] and joins(source, value, node):
                parent[root(source)] = root(node)
    regions: dict[Node, Region] = {}
    for node in nodes:
        regions.setdefault(root(node), []).append(node)
    return [region for region in regions.values() if len(region) > 1]


def earliest_stages(nodes: Iterable[Node], joins: Joins) -> dict[Node, int]:
    stages: dict[Node, int] = {}
    for node in nodes:
        stages[node] = max(
            (stages[v.node] + (not joins(v.node, v, node)) for v in node.operands if v.node in stages), default=0
        )
    return stages


def latest_stages(nodes: Sequence[Node], stages: dict[Node, int], joins: Joins) -> dict[Node, int]:
    """Moves every node that has readers to the latest stage they allow."""
    latest: dict[Node, int] = {}
    limits: dict[Node, int] = {}
    for node in reversed(nodes):
        latest[node] = limits.get(node, stages[node])
        for value in node.operands:
            if value.node in stages:
                limit = latest[node] - (not joins(value.node, value, node))
                limits[value.node] = min(limits.get(value.node, limit), limit)
    return latest


def with_regions(graph: Graph, regions: Sequence[Region], step: Callable[[Region], int]) -> Graph:
    """A copy of a graph with one `fused` node for each region, which takes the place of its last node."""
    result = Graph(graph.name, list(graph.inputs))
    builder = Builder(result)
    new: dict[Value, Value] = {}
    fused = {region[-1]: region for region in regions}
    read_outside = values_read_outside(graph, regions)
    for node in running_order(graph.nodes, regions):
        if node in fused:
            with builder.at(fused[node][0].origin):
                new |= emit_region(builder, fused[node], new, read_outside, step(fused[node]))
        else:
            operands = [new.get(operand, operand) for operand in node.operands]
            new |= zip(node.results, builder.emit_like(node, operands), strict=True)
    result.outputs = {name: new.get(value, value) for name, value in graph.outputs.items()}
    return result


def running_order(nodes: Sequence[Node], regions: Sequence[Region]) -> Iterator[Node]:
    """The nodes outside regions and the last node of each region, in a valid running order."""
    unit = {node: node for node in nodes} | {node: region[-1] for region in regions for node in region}
    position = {node: i for i, node in enumerate(nodes)}
    sources: dict[Node, set[Node]] = {unit[node]: set() for node in nodes}
    for node in nodes:
        sources[unit[node]] |= {unit[v.node] for v in node.operands if v.node is not None} - {unit[node]}
    return after_sources(sources, position)


def after_sources(sources: Mapping[Unit, Iterable[Unit]], position: Mapping[Unit, int]) -> Iterator[Unit]:
    """Units that run as one, each after its sources; of those that can run next, the one with the first position."""
    readers: dict[Unit, list[Unit]] = {unit: [] for unit in sources}
    for unit, found in sources.items():
        for source in found:
            readers[source].append(unit)
    waiting = {unit: len([*found]) for unit, found in sources.items()}
    ready = [(position[unit], unit) for unit, count in waiting.items() if not count]
    heapify(ready)
    while ready:
        _, unit = heappop(ready)
        yield unit
        for reader in readers[unit]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heappush(ready, (position[reader], reader))


def values_read_outside(graph: Graph, regions: Sequence[Region]) -> set[Value]:
    """Values that must be results of their region, since another region, another node or a graph output reads them."""
    number = {node: i for i, region in enumerate(regions) for node in region}
    read = set(graph.outputs.values())
    for node in graph.nodes:
        here = number.get(node, -1)
        read.update(v for v in node.operands if v.node is not None and (here < 0 or number.get(v.node, -1) != here))
    return read


def emit_region(
    builder: Builder, region: Region, new: Mapping[Value, Value], read_outside: set[Value], step: int
) -> dict[Value, Value]:
    """Adds the `fused` node, and the views of its results that are read outside. The old values -> the new ones."""
    own = {value for node in region for value in node.results}
    views, results = exported(region, own, read_outside)
    outside: dict[Value, Value] = {}
    if results:
        body, operands = body_with(needed_nodes(region, results), results)
        builder.emit("fused", [new.get(value, value) for value in operands], {"step": step, "body": body})
        outside.update(zip(results, builder.graph.nodes[-1].results, strict=True))
    for view in views:
        source = view.operands[0]
        source = outside.get(source, new.get(source, source))
        outside[view.result] = builder.emit(view.op.name, [source, *view.operands[1:]], view.attributes)
    return outside


def body_with(nodes: Sequence[Node], results: Sequence[Value]) -> tuple[Graph, list[Value]]:
    """A body of copies of some nodes, with these results, and the values from outside for its inputs."""
    own = {value for node in nodes for value in node.results}
    operands = dict.fromkeys(v for node in nodes for v in node.operands if not (v in own or isinstance(v, Literal)))
    body = Builder(Graph("body"))
    inner = {value: body.input(f"x{i}", value.type, "") for i, value in enumerate(operands)}
    for node in nodes:
        copies = body.emit_like(node, [inner.get(value, value) for value in node.operands])
        inner |= zip(node.results, copies, strict=True)
    body.graph.outputs = {f"y{i}": inner[value] for i, value in enumerate(results)}
    return body.graph, list(operands)


def exported(region: Region, own: set[Value], read_outside: set[Value]) -> tuple[list[Node], list[Value]]:
    """The views to repeat outside, and the results: values that are read outside and are not views."""
    views: set[Node] = set()
    results: set[Value] = set()
    for value in own & read_outside:
        while value in own and value.node is not None and VIEW in value.node.op.traits:
            views.add(value.node)
            value = value.node.operands[0]
        results |= {value} & own
    return [n for n in region if n in views], [v for node in region for v in node.results if v in results]


def without_regions(graph: Graph) -> Graph:
    """The graph with its regions inlined, in scans too; regions with a step are kept."""

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        is_region = REGION in node.op.traits and not node.attributes["step"]
        return builder.inline(node.body, operands) if is_region else None

    return rebuild(inside_scans(graph, without_regions), rule)


def body_of(node: Node) -> Graph:
    """A node as a separate region."""
    body = Graph("body")
    builder = Builder(body)
    operands = [
        v if isinstance(v, Literal) else builder.input(f"x{i}", v.type, "") for i, v in enumerate(node.operands)
    ]
    body.outputs = {f"y{i}": result for i, result in enumerate(builder.emit_like(node, operands))}
    return body


def is_backward(node: Node) -> bool:
    return node.origin is not None and node.origin.backward


# For reports ----------------------------------------------------------------------------------------------------------


def flattened(graph: Graph) -> tuple[Graph, list[Region]]:
    """The graph with all its regions inlined, and the nodes of each region."""
    regions: list[Region] = []

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if REGION not in node.op.traits:
            return with_operands(builder, node, operands)  # without changing the body of a scan
        before = len(builder.graph.nodes)
        results = builder.inline(node.body, operands)
        regions.append(builder.graph.nodes[before:])
        return results

    return rebuild(graph, rule), regions


def path_around(graph: Graph, source: Node, reader: Node) -> bool:
    """Whether a path from a node to one of its readers goes through a third node."""
    position = {node: i for i, node in enumerate(graph.nodes)}
    pending = [value.node for value in reader.operands if value.node not in (None, source)]
    seen: set[Node] = set()
    while pending:
        node = pending.pop()
        if node is source:
            return True
        if node and node not in seen and position.get(node, -1) > position[source]:
            seen.add(node)
            pending += [value.node for value in node.operands]
    return False
