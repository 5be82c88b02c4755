"""Which bytes are dead according to the memory plan, after each kernel of the source with a clock."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.graph import VARIABLES, Graph, Node
from compiler.planning.memory import Plan
from compiler.targets.shared.writer import Kernel

Part = tuple[int, int]  # offsets: the first byte, and the one after the last


def end_times(plan: Plan) -> dict[Node, int]:
    """The time when each node is done, as the planner counts: nodes, also those of scan bodies, and ends of steps."""
    times: dict[Node, int] = {}

    def walk(graph: Graph, time: int) -> int:
        for node in graph.nodes:
            time += 1
            if node.op.name == "scan":
                time = walk(node.body, time) + 1
            times[node] = time
        return time

    end = walk(plan.graph, 0)
    assert all(plan.block(value).last == end + 1 for value in plan.graph.outputs.values()), "the planner differs"
    return times


def dead_parts(plan: Plan, kernels: Sequence[Kernel]) -> list[list[Part]]:
    """After each kernel, the parts of the arena after the variables that hold no tensor in use."""
    times = end_times(plan)
    blocks = [block for value, block in plan.blocks.items() if value.kind not in VARIABLES and block.bytes]
    result = []
    for kernel in kernels:
        now = max((times[node] for node in kernel.nodes), default=max(times.values()))  # no node: a copy at the end
        live = sorted((block.offset, block.end) for block in blocks if block.first <= now < block.last)
        result.append(gaps(live, plan.base, plan.size))
    return result


def gaps(parts: Sequence[Part], start: int, end: int) -> list[Part]:
    """The gaps between sorted parts, from a start to an end."""
    result = []
    for first, last in (*parts, (end, end)):
        if first > start:
            result.append((start, first))
        start = max(start, last)
    return result
