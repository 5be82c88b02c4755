"""The memory that the code of ops allocates outside of the arena: counted, since the plan does not place it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.ir.graph import Graph, Node
from compiler.planning.memory import Plan

Allocated = Callable[[Node, int], int]  # (node, batch) -> bytes while its code runs


def peaks_outside(plans: Sequence[Plan], batch: int, allocated: Allocated) -> tuple[int, int]:
    """(the most bytes that a graph other than `init` allocates at any time, the most that `init` uses at any time).

    The arena has no memory before it is written: the second number has only its part that `init` has written by then.
    """
    outside = [most_allocated(plan.graph, batch, allocated) for plan in plans if plan.graph.name != "init"]
    return max(outside, default=0), max(
        (peak_of_init(plan, batch, allocated) for plan in plans if plan.graph.name == "init"), default=0
    )


def most_allocated(graph: Graph, batch: int, allocated: Allocated) -> int:
    """The most bytes that a graph allocates at any time."""
    inner = [most_allocated(node.body, batch, allocated) for node in graph.nodes if "body" in node.attributes]
    return max((*inner, *(allocated(node, batch) for node in graph.nodes)), default=0)


def peak_of_init(plan: Plan, batch: int, allocated: Allocated) -> int:
    """The most bytes, of the arena and outside of it, in use while the initial values are computed."""
    written: list[tuple[int, int]] = []
    most = 0
    for node in plan.graph.nodes:
        most = max(most, covered(written) + allocated(node, batch))
        blocks = [plan.block(result) for result in node.results]
        written += [(block.offset, block.offset + block.bytes) for block in blocks]
    return max(most, covered(written))


def covered(intervals: Sequence[tuple[int, int]]) -> int:
    """The number of bytes in any of the intervals."""
    total = end = 0
    for first, last in sorted(intervals):
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total
