"""The memory plan as text: `format_plans` prints the plan, `format_report` explains it.

The report shows the bytes of every graph at several batch sizes. For one graph it shows live bytes over time, the
tensors at the peak, and for every tensor whose bytes it shares, or why it has its own buffer. Time counts nodes in
running order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from compiler.ir.graph import VARIABLES, Literal, Value
from compiler.ir.op import ELEMENTWISE, REGION
from compiler.ir.printer import number
from compiler.planning.memory import Plan
from compiler.planning.packing import Block
from runtime.errors import shortened

COLUMNS, ROWS = 60, 8  # of the chart
MOST_AT_PEAK = 30
MOST_NAMED = 3


# The plan -------------------------------------------------------------------------------------------------------------


def format_plans(plans: Sequence[Plan]) -> str:
    return "\n\n".join(map(format_plan, plans)) + "\n"


def format_plan(plan: Plan) -> str:
    """Blocks in order of address."""
    names = names_of(plan)
    lines = [f"plan {plan.graph.name}: offset, bytes, first to last node, tensor"]
    for block in by_address(plan):
        sharing = [names[value] for value in sharers(plan, block)]
        shared = f"  also {', '.join(sharing)}" if sharing else ""
        lines.append(f"{place(block)}  {names[block.value]}: {block.value.type}{shared}")
    lines.append(f"  variables {plan.base:,} bytes")
    planned = plan.size - plan.base
    lines.append(
        f"  tensors   {plan.naive:,} bytes without reuse, {planned:,} planned, {plan.lower_bound:,} lower bound"
    )
    return "\n".join(lines)


def names_of(plan: Plan) -> dict[Value, str]:
    """Printed names of all values; those in a body are prefixed with the number of its node's first result."""
    names: dict[Value, str] = {}
    pending = [(plan.graph, "%")]
    while pending:
        graph, prefix = pending.pop()
        numbers = number(graph)
        names |= {value: prefix + name for value, name in numbers.items()}
        scratch = {plan.scratch[node]: node for node in graph.nodes if node in plan.scratch}
        names |= {value: f"scratch of {prefix}{numbers[node.results[0]]}" for value, node in scratch.items()}
        pending += [(n.body, f"{prefix}{numbers[n.results[0]]}.") for n in graph.nodes if "body" in n.attributes]
    return names


def by_address(plan: Plan) -> list[Block]:
    return sorted(plan.blocks.values(), key=lambda block: (block.offset, block.first))


def sharers(plan: Plan, block: Block) -> list[Value]:
    """The other tensors in the same block."""
    return [value for value, owner in plan.owner.items() if owner is block.value and value is not block.value]


def place(block: Block) -> str:
    lifetime = "variable" if block.value.kind in VARIABLES else f"{block.first}–{block.last}"
    return f"  {block.offset:>12,}  {block.bytes:>12,}  {lifetime:>11}"


# The report -----------------------------------------------------------------------------------------------------------


def format_report(plans: Mapping[int, Sequence[Plan]], graph: str | None = None) -> str:
    """All graphs at each batch size, then one graph in detail, by default the largest, at the first batch size."""
    batch, first = next(iter(plans.items()))
    chosen = max(first, key=lambda plan: (plan.graph.name == graph, plan.size))
    explained = Explanation(chosen)
    parts = [
        table(plans),
        [f"{chosen.graph.name} at batch {batch}: live bytes over {explained.end + 1} points in time"],
        explained.chart(),
        explained.peak_tensors(),
        explained.buffers(),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def table(plans: Mapping[int, Sequence[Plan]]) -> Iterator[str]:
    yield f"{'graph':<12}  {'batch':>7}  {'naive':>15}  {'planned':>15}  {'lower bound':>15}  planned / bound"
    for batch, graphs in plans.items():
        for plan in graphs:
            planned, bound = plan.size - plan.base, plan.lower_bound
            ratio = f"{planned / bound:.3f}" if bound else "–"
            sizes = f"{plan.naive:>15,}  {planned:>15,}  {bound:>15,}"
            yield f"{plan.graph.name:<12}  {batch:>7}  {sizes}  {ratio:>15}"
    for batch, graphs in plans.items():
        arena, variables = max(plan.size for plan in graphs), min(plan.base for plan in graphs)
        yield f"arena at batch {batch}: {arena:,} bytes, {variables:,} of them variables; the graphs share the rest"


class Explanation:
    """The plan of one graph in detail."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.names = names_of(plan)
        self.blocks = [block for block in by_address(plan) if block.value.kind not in VARIABLES]
        self.end = max((block.last for block in self.blocks), default=0)
        changes = [0] * (self.end + 2)
        for block in self.blocks:
            changes[block.first] += block.bytes
            changes[block.last + 1] -= block.bytes
        self.live = list(accumulate(changes[:-1]))
        self.peak = self.live.index(max(self.live))
        self.scratch_of = {value: node for node, value in plan.scratch.items()}

    # Live bytes -------------------------------------------------------------------------------------------------------

    def chart(self) -> Iterator[str]:
        """Columns are intervals of time, with the maximum of live bytes in each as height."""
        width = min(COLUMNS, len(self.live))
        starts = [column * len(self.live) // width for column in range(width + 1)]
        heights = [max(self.live[a:b]) for a, b in pairwise(starts)]
        most = max(*heights, 1)
        for row in range(ROWS, 0, -1):
            label = f"{most:,}" if row == ROWS else ""
            yield f"{label:>15} │{''.join('█' if h * ROWS > (row - 1) * most else ' ' for h in heights)}".rstrip()
        yield f"{0:>15} └{'─' * width}"
        column = next(i for i, start in enumerate(starts[1:]) if start > self.peak)
        yield f"{'':>17}{'':>{column}}^ peak at node {self.peak}{self.running()}"

    def running(self) -> str:
        """The node that runs at the peak: the latest one with a live result."""
        made = [block for block in self.blocks if block.value.node and block.first <= self.peak]
        if not made:
            return ""
        value = max(made, key=lambda block: block.first).value
        assert value.node
        return f": {self.names[value]} = {value.node.op.name}(…){self.origin(value)}"

    def peak_tensors(self) -> Iterator[str]:
        """The tensors that are live at the peak, largest first."""
        live = [block for block in self.blocks if block.first <= self.peak <= block.last]
        live.sort(key=lambda block: (-block.bytes, block.first))
        total = sum(block.bytes for block in live)
        yield f"at the peak, {total:,} bytes in {len(live)} tensors: bytes, share, lifetime, tensor"
        for block in live[:MOST_AT_PEAK]:
            share = f"{100 * block.bytes / total if total else 0:.1f}%"
            lifetime = f"{block.first}–{block.last}"
            name = f"{self.names[block.value]}: {block.value.type}"
            yield f"  {block.bytes:>15,}  {share:>6}  {lifetime:>11}  {name}{self.origin(block.value)}"
        if len(live) > MOST_AT_PEAK:
            rest = live[MOST_AT_PEAK:]
            yield f"  {sum(block.bytes for block in rest):>15,}  in {len(rest)} smaller ones"

    # Sharing ----------------------------------------------------------------------------------------------------------

    def buffers(self) -> Iterator[str]:
        """Every block with the reason for its place, and below it the tensors that share it."""
        yield "buffers: offset, bytes, lifetime, tensor: reason"
        for block in by_address(self.plan):
            value = block.value
            yield f"{place(block)}  {self.names[value]}: {value.type}: {self.why_own(block)}{self.origin(value)}"
            for other in sharers(self.plan, block):
                yield f"{'':>43}{self.names[other]}: {other.type}: {self.why_shared(other)}{self.origin(other)}"

    def why_shared(self, value: Value) -> str:
        plan, owner = self.plan, self.names[self.plan.owner[value]]
        if value.node in plan.views:
            assert value.node
            return f"view of {self.names[value.node.operands[0]]}"
        if value in plan.slots:
            return f"step of the stack {self.names[plan.slots[value]]}"
        if value in plan.in_place and plan.in_place[value].kind not in (*VARIABLES, "carry"):
            return f"in place of {self.names[plan.in_place[value]]}, which is not read again"
        if value.node is None:  # an input of a body
            words = {"carry": "carry, in place of", "sequence": "step of"}
            return f"{words.get(value.kind, 'the same as')} {owner}"
        return f"new value, in place of {owner}"

    def why_own(self, block: Block) -> str:
        value = block.value
        if value.kind in VARIABLES:
            return "variable, fixed offset"
        if value in self.scratch_of:
            region = self.plan.regions.get(self.scratch_of[value])
            per_thread = f", {region.bytes_per_thread:,} bytes per thread" if region else ""
            return f"needed while the node runs{per_thread}; {self.why_there(block)}"
        if value.node is None:
            return f"{value.kind}, filled before the graph runs; {self.why_there(block)}"
        return f"own buffer: {self.why_not_in_place(block)}; {self.why_there(block)}"

    def why_not_in_place(self, block: Block) -> str:
        """Why a result was not written over an operand."""
        value, node = block.value, block.value.node
        assert node
        alike = [v for v in node.operands if not isinstance(v, Literal) and v.type == value.type]
        if not alike:
            return "no operand has its type"
        if not node.op.traits & {ELEMENTWISE, REGION}:
            return f"{node.op.name} reads its operands while it writes"
        for operand in alike:
            other = self.plan.block(operand)
            if other.value.kind in VARIABLES:
                reason = f"{self.names[operand]} is a variable"
            elif other.last > block.first:
                reason = f"the bytes of {self.names[operand]} are needed until node {other.last}"
            elif self.plan.orders[other.value] != self.plan.orders[value]:
                reason = f"the axes of {self.names[operand]} are in another order"
            else:
                continue
            return reason
        return "its operands are also read at other positions"

    def why_there(self, block: Block) -> str:
        """The blocks whose bytes it reuses, or those that are live at the same time."""
        over = [b for b in self.blocks if b.offset < block.end and block.offset < b.end and b.last < block.first]
        covered = {b for b in over for c in over if c.first > b.last and c.offset <= b.offset and b.end <= c.end}
        before = sorted((b for b in over if b not in covered), key=lambda b: -b.last)
        if before:
            return f"reuses bytes of {self.named(before)}, free after node {before[0].last}"
        others = [b for b in self.blocks if b is not block and b.first <= block.last and block.first <= b.last]
        others.sort(key=lambda b: -b.bytes)
        return f"live at the same time as {self.named(others)}" if others else "nothing else is live"

    def named(self, blocks: Sequence[Block]) -> str:
        return shortened([self.names[block.value] for block in blocks], MOST_NAMED)

    def origin(self, value: Value) -> str:
        node = value.node or self.scratch_of.get(value)
        return f"  // {node.origin}" if node and node.origin else ""
