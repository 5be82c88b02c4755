"""Why nodes were fused and why not: for each graph its regions, and for neighbours in different ones the reason.

`explain` looks at a module as it stands just before the pass `fusion`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from compiler.ir.graph import Graph, Module, Node
from compiler.ir.printer import number
from compiler.ops.op import VIEW
from compiler.passes.fusion import kind_of, refusal, regions_of
from compiler.passes.regions import Region

BETWEEN = "something that cannot be in the region stands between them"


def explain(module: Module) -> str:
    """The report of all graphs."""
    return "\n\n".join("\n".join(lines_of(graph)) for graph in module.values()) + "\n"


def lines_of(graph: Graph, title: str = "graph") -> Iterator[str]:
    regions = regions_of(graph)
    kernels = [node for node in graph.nodes if VIEW not in node.op.traits]
    inside = sum(node in kernels for region in regions for node in region)
    after = len(kernels) - inside + len(regions)
    yield f"{title} {graph.name}: {len(kernels)} nodes become {after}: {len(regions)} regions and {after - len(regions)} nodes"
    numbers = number(graph)
    for i, region in enumerate(regions, 1):
        yield from region_lines(i, region, numbers)
    yield from apart_lines(graph, regions, numbers)
    for node in graph.nodes:
        if node.op.name == "scan":
            yield ""
            yield from lines_of(node.body, f"scan of %{numbers[node.results[0]]}, body")


def region_lines(index: int, region: Region, numbers: dict) -> Iterator[str]:
    counts = Counter(node.op.name for node in region if VIEW not in node.op.traits)
    ops = ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())
    first, last = region[0].results[0], region[-1].results[0]
    yield f"  region {index}: %{numbers[first]} to %{numbers[last]}: {ops}"
    yield from (f"      {place}" for place in dict.fromkeys(str(node.origin) for node in region if node.origin))


def apart_lines(graph: Graph, regions: Sequence[Region], numbers: dict) -> Iterator[str]:
    """Neighbours that were not fused, by reason."""
    home = {node: i for i, region in enumerate(regions) for node in region}
    kinds = {node: kind_of(node) for node in graph.nodes}
    reasons: dict[str, list[str]] = {}
    for node in graph.nodes:
        for position, value in enumerate(node.operands):
            source = value.node
            if source is None or VIEW in node.op.traits or VIEW in source.op.traits:
                continue
            if home.get(source, source) != home.get(node, node):
                reason = refusal(kinds[source], kinds[node], position) or BETWEEN
                reasons.setdefault(reason, []).append(edge(source, node, numbers))
    for reason, edges in reasons.items():
        yield f"  apart: {reason}"
        yield from (f"      {each}" for each in dict.fromkeys(edges))


def edge(source: Node, reader: Node, numbers: dict) -> str:
    return f"%{numbers[source.results[0]]} {source.op.name} → %{numbers[reader.results[0]]} {reader.op.name}"
