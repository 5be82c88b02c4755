"""Refusing a program that needs more memory than there is, before any is allocated, and saying what would help."""

from __future__ import annotations

from compiler.cli.memory_limit import Memory, Peak, in_units, memory_of_target, predicted_peak
from compiler.diagnostics import Note, Span, UserError
from compiler.driver import Compilation
from compiler.planning.memory import Plan
from compiler.targets.registry import HOST
from compiler.targets.target import find_target
from runtime.datasets.dataset import Footprint

NAMED_TENSORS = 5


def check_memory(
    compiled: Compilation, memory: Memory, data: Footprint | None = None, check_numerics: bool = False
) -> None:
    """Raises UserError if a program needs too much memory, with its largest tensors and the batch that fits."""
    peak = predicted_peak(compiled.executable, compiled.manifest, data, check_numerics)
    if memory.bytes is None or peak.total <= memory.bytes:
        return
    plan = max(compiled.plans, key=lambda plan: plan.size)
    raise UserError.plain(
        f"{compiled.model.name} needs more memory than {memory.owner} (graph {plan.graph.name})",
        expected=f"at most {in_units(memory.bytes)}{memory.note}",
        found=str(peak),
        notes=[*largest_tensors(plan), Note(what_would_help(compiled, peak, memory.bytes))],
    )


def check_main_memory(compiled: Compilation) -> None:
    """The same for a program without a data set in the memory of this machine."""
    check_memory(compiled, memory_of_target(HOST))


def largest_tensors(plan: Plan) -> list[Note]:
    """A note per tensor, at the line of the model that it comes from."""
    users = {value: node for node, value in plan.scratch.items()}
    notes = []
    for block in sorted(plan.blocks.values(), key=lambda block: (-block.bytes, block.first))[:NAMED_TENSORS]:
        value = block.value
        node = value.node or users.get(value)
        origin = node and node.origin
        span = Span(origin.file, origin.line, origin.column, origin.line, origin.column) if origin else None
        made = f"the {'working space' if value in users else 'result'} of {node.op.name}" if node else "a tensor"
        notes.append(Note(f"{in_units(block.bytes)} for {value.name or made} {value.type}", span))
    return notes


def what_would_help(compiled: Compilation, peak: Peak, limit: int) -> str:
    """The largest batch that fits, found by bisection: memory grows with the batch."""
    batch, rest = compiled.executable.batch, peak.total - peak.tensors
    fits, too_large = 0, batch
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        if rest + arena_at(compiled, middle) <= limit:
            fits = middle
        else:
            too_large = middle
    if fits:
        return f"--batch {fits} needs {in_units(rest + arena_at(compiled, fits))}; now it is {batch}"
    return f"a smaller batch does not help: --batch 1 needs {in_units(rest + arena_at(compiled, 1))}"


def arena_at(compiled: Compilation, batch: int) -> int:
    """Bytes of the arena at another batch size."""
    plans, _ = find_target(compiled.executable.target).plan(compiled.optimized, batch)
    return max(plan.size for plan in plans)
