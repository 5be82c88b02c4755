"""The memory plan as text: every block with its lifetime and bytes, and the total against the least possible."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.graph import Value
from compiler.ir.printer import number
from compiler.memory import VARIABLES, Plan


def format_plans(plans: Sequence[Plan]) -> str:
    return "\n\n".join(map(format_plan, plans)) + "\n"


def format_plan(plan: Plan) -> str:
    """Blocks in order of address; lifetimes count nodes in running order."""
    names: dict[Value, str] = {}
    collect_names(plan, names)
    blocks = sorted(plan.blocks.values(), key=lambda block: (block.offset, block.first))
    lines = [f"plan {plan.graph.name}: offset, bytes, first to last node, tensor"]
    for block in blocks:
        sharing = [
            names[value] for value, owner in plan.owner.items() if owner is block.value and value is not block.value
        ]
        shared = f"  also {', '.join(sharing)}" if sharing else ""
        life = "variable" if block.value.kind in VARIABLES else f"{block.first}–{block.last}"
        lines.append(
            f"  {block.offset:>12,}  {block.bytes:>12,}  {life:>11}  {names[block.value]}: {block.value.type}{shared}"
        )
    peak = plan.lower_bound
    lines.append(f"  variables {plan.base:,} bytes")
    lines.append(
        f"  tensors   {plan.naive:,} bytes if none shared, {plan.size - plan.base:,} planned, {peak:,} lower bound"
    )
    return "\n".join(lines)


def collect_names(plan: Plan, names: dict[Value, str]) -> None:
    """Printed names of all values; those of the body of a scan carry the number of its first result."""
    pending = [(plan.graph, "%")]
    while pending:
        graph, prefix = pending.pop()
        numbers = number(graph)
        names.update((value, prefix + name) for value, name in numbers.items())
        names.update(
            (plan.scratch[n], f"scratch of {prefix}{numbers[n.results[0]]}") for n in graph.nodes if n in plan.scratch
        )
        pending += [(n.body, f"{prefix}{numbers[n.results[0]]}.") for n in graph.nodes if "body" in n.attributes]
