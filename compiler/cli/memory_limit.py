"""How much memory a program takes, and refusing one that takes more than there is, before any is allocated."""

from __future__ import annotations

import math
import re
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from compiler.diagnostics import Note, Span, UserError
from compiler.ir.types import BYTES
from runtime.cpu import free_memory
from runtime.errors import RuntimeUserError

if TYPE_CHECKING:
    from compiler.driver import Compilation
    from compiler.planning.memory import Plan
    from runtime.datasets import Footprint
    from runtime.program import Executable, Manifest

NAMED_TENSORS = 5
COPIES = 2  # of all variables, while a checkpoint is written or read
WAITING = 2  # checkpoints, the last and the best, that wait to be written where not every epoch is saved
# Measured: the modules that training imports and the stacks of its threads, and what a character of generated source
# becomes: code, views of the arena, closures.
MODULES, BYTES_PER_CHARACTER = 2_000_000, 55
UNITS = {"": 1, "B": 1} | {
    f"{p}{b}B": (1024 if b else 1000) ** (n + 1) for n, p in enumerate("KMGT") for b in ("", "i")
}


@dataclass(frozen=True)
class Memory:
    """What a program may take: bytes, or None where the system does not tell, and what has them."""

    bytes: int | None
    owner: str  # as in "this machine has"
    note: str = ""  # to the number of bytes


@dataclass(frozen=True)
class Peak:
    """What a process takes at most beside what it has before its program is allocated, in bytes."""

    tensors: int  # the arena
    data: int = 0  # the data set, as stored
    copies: int = 0  # while data are loaded, or a checkpoint is written or read; these never happen at the same time
    code: int = 0  # the generated code, and modules that it needs

    @property
    def total(self) -> int:
        return sum(astuple(self))

    def __str__(self) -> str:
        parts = {
            "tensors": self.tensors,
            "data": self.data,
            "copies of data or weights": self.copies,
            "code": self.code,
        }
        told = ", ".join(f"{in_units(size)} of {what}" for what, size in parts.items() if size)
        return f"{in_units(self.total)}: {told}"


def main_memory(limit: str | None = None) -> Memory:
    """What is free now, or what a process may still take up to a limit on all of it, such as "2GB"."""
    if limit is None:
        return Memory(free_memory.free(), "this machine has", " that is free")
    has = free_memory.resident()
    note = f", and {in_units(has)} that the process has already"
    return Memory(max(0, read_size(limit) - has), f"--memory-limit {limit} allows", note)


def read_size(text: str) -> int:
    """The bytes in a text such as "512MB", "1.5 GiB" or "100000"; raises RuntimeUserError for any other."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?) ?([kKMGT]?i?B|)", text)
    if not match or (unit := match[2].replace("k", "K")) not in UNITS:
        expected = "bytes, or a number with kB, MB, GB or TB, or KiB, MiB, GiB or TiB"
        raise RuntimeUserError("--memory-limit takes a size", expected=expected, found=text[:40], hint="such as 2GB")
    return math.floor(float(match[1]) * UNITS[unit])


def predicted_peak(executable: Executable, manifest: Manifest, data: Footprint | None) -> Peak:
    """The memory for training, or evaluating, or predicting where `data` is None, without what is given then."""
    tensors = executable.arena_bytes
    if executable.target != "numpy":  # all but the arena is in main memory
        return Peak(tensors)
    weights = sum(BYTES[spec.dtype] * math.prod(size or 1 for size in spec.shape) for spec in manifest.variables)
    checkpoints = COPIES + (WAITING if manifest.settings.checkpoint > 1 else 0)
    copies = max(checkpoints * weights, data.loading if data else 0)
    code = MODULES + BYTES_PER_CHARACTER * len(executable.source)
    return Peak(tensors, data.arrays if data else 0, copies, code)


def check_memory(compiled: Compilation, memory: Memory, data: Footprint | None = None) -> None:
    """Raises UserError with the largest tensors, and the batch that would do, if a program needs more than it may."""
    peak = predicted_peak(compiled.executable, compiled.manifest, data)
    if memory.bytes is None or peak.total <= memory.bytes:
        return
    plan = max(compiled.plans, key=lambda plan: plan.size)
    raise UserError.plain(
        f"{compiled.model.name} needs more memory than {memory.owner} (graph {plan.graph.name})",
        expected=f"at most {in_units(memory.bytes)}{memory.note}",
        found=str(peak),
        notes=[*largest_tensors(plan), Note(what_would_help(compiled, peak, memory.bytes))],
    )


def largest_tensors(plan: Plan) -> list[Note]:
    """A note for each, at the line of the model that it comes from."""
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
    """The largest batch that fits, found by planning for smaller ones: the more examples, the more memory."""
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
    from compiler.targets.target import find_target

    plans, _ = find_target(compiled.executable.target).plan(compiled.optimized, batch)
    return max(plan.size for plan in plans)


def in_units(size: int) -> str:
    """`1.5 GB`."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if value < 1000 or unit == "EB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"
