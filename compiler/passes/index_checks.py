"""index-checks: an index that cannot leave its table is not checked while the program runs.

    check_index(i, size=n) = i    if 0 ≤ i < n for all data: by its inputs' ranges, iota, argmax, clip, % …

An input that is an index as it is in the data is checked when the data are loaded. The ranges are in ops/ranges.py.
"""

from __future__ import annotations

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Module, Node, Value
from compiler.ops.ranges import Interval, index_limits, interval_of, limited
from compiler.passes.rewriting import rebuild


def remove_index_checks(module: Module) -> Module:
    """See the file's docstring."""
    limits = index_limits(module)
    return {name: without_checks(graph, limits) for name, graph in module.items()}


def without_checks(graph: Graph, limits: dict[str, int]) -> Graph:
    if not any(node.op.name == "check_index" for node in graph.walk()):
        return graph
    known = limited(graph, limits)

    def rule(builder: Builder, node: Node, operands: list[Value]) -> list[Value] | None:
        return operands if node.op.name == "check_index" and is_inside(known, node) else None

    return rebuild(graph, rule)


def is_inside(known: dict[Value, Interval | None], node: Node) -> bool:
    found = interval_of(node.operands[0], known)
    return found is not None and found[0] >= 0 and found[1] < node.attributes["size"]
