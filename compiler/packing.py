"""Packing: blocks of bytes with lifetimes to offsets in one arena, and the least that any packing can reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from compiler.ir.graph import Value

ALIGNMENT = 64


@dataclass(eq=False)
class Block:
    """A run of bytes: whose, how many, and from which node to which it is needed."""

    value: Value
    bytes: int
    first: int
    last: int
    offset: int = -1

    @property
    def end(self) -> int:
        return self.offset + self.bytes


def assign_offsets(blocks: Iterable[Block], base: int) -> int:
    """Largest first, each at the lowest offset free during its whole life; returns the end of the arena."""
    done: list[Block] = []
    for block in sorted(blocks, key=lambda b: (-b.bytes, b.first)):
        offset = base
        for other in sorted(
            (b for b in done if b.first <= block.last and block.first <= b.last), key=lambda b: b.offset
        ):
            if other.offset - offset >= block.bytes:
                break
            offset = max(offset, aligned(other.end))
        block.offset = offset
        done.append(block)
    return max((aligned(block.end) for block in done), default=base)


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def peak_of_live(blocks: Iterable[Block]) -> int:
    """The most bytes that are live at one time: no packing can be smaller."""
    events: list[tuple[int, int]] = []
    for block in blocks:
        events += [(block.first, block.bytes), (block.last + 1, -block.bytes)]
    live = peak = 0
    for _, change in sorted(events):
        live += change
        peak = max(peak, live)
    return peak
