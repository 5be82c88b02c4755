"""Refuses a program that needs more memory than the machine or its GPU has, before any is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compiler.diagnostics import Note, Span, UserError

if TYPE_CHECKING:
    from compiler.memory import Plan

NAMED_TENSORS = 5


@dataclass(frozen=True)
class Memory:
    """What a program may take: bytes, or None where the system does not tell, and what they belong to."""

    bytes: int | None
    owner: str


def main_memory() -> Memory:
    return Memory(installed_memory(), "this machine")


def check_memory(model: str, plans: Sequence[Plan], memory: Memory | None = None) -> None:
    """Raises UserError with the largest tensors if a plan has more bytes than there are, by default in this machine."""
    memory = memory or main_memory()
    limit = memory.bytes
    plan = max(plans, key=lambda plan: plan.size)
    if limit is None or plan.size <= limit:
        return
    blocks = sorted(plan.blocks.values(), key=lambda block: (-block.bytes, block.first))[:NAMED_TENSORS]
    notes = []
    for block in blocks:
        origin = block.value.node and block.value.node.origin
        span = Span(origin.file, origin.line, origin.column, origin.line, origin.column) if origin else None
        notes.append(Note(f"{in_units(block.bytes)} for {block.value.name or 'a tensor'} {block.value.type}", span))
    message = f"{model} needs more memory than {memory.owner} has (graph {plan.graph.name})"
    raise UserError.plain(message, expected=f"at most {in_units(limit)}", found=in_units(plan.size), notes=notes)


def installed_memory() -> int | None:
    """Bytes of main memory, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def in_units(size: int) -> str:
    """`1.5 GB`."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if value < 1000 or unit == "EB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"
