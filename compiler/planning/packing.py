"""Packing: blocks of bytes with lifetimes to offsets in one arena, and the least that any packing can reach.

The best packing is hard to find; some simple ones are tried, and the smallest arena wins:

    largest first     each block, by falling size, at the lowest addresses that are free during its whole life. Mostly
                      perfect, but every block is compared with many others: only for up to `FEW` blocks.
    longest first     the same by falling length of life.
    forward in time   each block, when its life begins, in the smallest free range that holds it, as allocators do.
                      Perfect where lives are nested, as those of a forward and a backward pass are.
    backward in time  the same from the end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from compiler.ir.graph import Value
from runtime.program import ALIGNMENT

FEW = 2048


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


Life = tuple[int, int, int]  # bytes, first, last
# Offsets of lives that are sorted by falling size; sizes are multiples of ALIGNMENT and not 0.
Packing = Callable[[Sequence[Life]], list[int]]


def assign_offsets(blocks: Iterable[Block], base: int) -> int:
    """Gives every block its offset; returns the end of the arena. The order of the blocks does not matter."""
    ordered = sorted(blocks, key=lambda block: (-block.bytes, block.first, block.last))
    filled = [block for block in ordered if block.bytes]
    lives = [(aligned(block.bytes), block.first, block.last) for block in filled]
    least, size, offsets = most_live(lives), None, []
    for packing in FOR_FEW + FOR_ALL if len(lives) <= FEW else FOR_ALL:
        found = packing(lives)
        found_size = max((at + life[0] for at, life in zip(found, lives, strict=True)), default=0)
        if size is None or found_size < size:
            size, offsets = found_size, found
        if size == least:
            break
    for block in ordered:
        block.offset = base  # of those without bytes
    for block, offset in zip(filled, offsets, strict=True):
        block.offset = base + offset
    return base + (size or 0)


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def peak_of_live(blocks: Iterable[Block]) -> int:
    """The most bytes that are live at one time: no packing can be smaller."""
    return most_live((block.bytes, block.first, block.last) for block in blocks)


def most_live(lives: Iterable[Life]) -> int:
    events: list[tuple[int, int]] = []
    for size, first, last in lives:
        events += [(first, size), (last + 1, -size)]
    live = peak = 0
    for _, change in sorted(events):
        live += change
        peak = max(peak, live)
    return peak


# Packings -------------------------------------------------------------------------------------------------------------


def largest_first(lives: Sequence[Life]) -> list[int]:
    return first_fit(lives)


def longest_first(lives: Sequence[Life]) -> list[int]:
    order = sorted(range(len(lives)), key=lambda index: lives[index][1] - lives[index][2])
    offsets = first_fit([lives[index] for index in order])
    return [offset for _, offset in sorted(zip(order, offsets, strict=True))]


def first_fit(lives: Sequence[Life]) -> list[int]:
    """Each in its turn at the lowest addresses that are free during its whole life."""
    offsets: list[int] = []
    placed: list[tuple[int, int, int, int]] = []  # by address: start, first, last, end
    for size, first, last in lives:
        offset = 0
        for start, other_first, other_last, end in placed:
            if other_first <= last and first <= other_last:
                if start - offset >= size:
                    break
                if end > offset:
                    offset = end
        insort(placed, (offset, first, last, offset + size))
        offsets.append(offset)
    return offsets


def forward_in_time(lives: Sequence[Life]) -> list[int]:
    offsets = [0] * len(lives)
    space = FreeSpace()
    used: list[tuple[int, int, int]] = []  # a heap: last, start, end
    for index in sorted(range(len(lives)), key=lambda index: lives[index][1]):
        size, first, last = lives[index]
        while used and used[0][0] < first:
            _, start, end = heappop(used)
            space.give(start, end)
        offsets[index] = start = space.take(size)
        heappush(used, (last, start, start + size))
    return offsets


def backward_in_time(lives: Sequence[Life]) -> list[int]:
    return forward_in_time([(size, -last, -first) for size, first, last in lives])


FOR_FEW: tuple[Packing, ...] = (largest_first, longest_first)
FOR_ALL: tuple[Packing, ...] = (forward_in_time, backward_in_time)


class FreeSpace:
    """The free ranges below `top`, above which all is free; ranges that touch become one."""

    def __init__(self) -> None:
        self.top = 0
        self.ranges: list[tuple[int, int]] = []  # (bytes, start), sorted
        self.ends: dict[int, int] = {}  # start -> end
        self.starts: dict[int, int] = {}  # end -> start

    def take(self, size: int) -> int:
        """The start of so many bytes: of the smallest range that has them, of the lowest if there are several."""
        index = bisect_left(self.ranges, (size, 0))
        if index == len(self.ranges):
            self.top += size
            return self.top - size
        _, start = self.ranges[index]
        end = self.remove(start)
        if end > start + size:
            self.add(start + size, end)
        return start

    def give(self, start: int, end: int) -> None:
        """Frees what was taken."""
        if start in self.starts:
            start = self.starts[start]
            self.remove(start)
        if end in self.ends:
            end = self.remove(end)
        if end == self.top:
            self.top = start
        else:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        insort(self.ranges, (end - start, start))
        self.ends[start], self.starts[end] = end, start

    def remove(self, start: int) -> int:
        end = self.ends.pop(start)
        del self.starts[end]
        self.ranges.pop(bisect_left(self.ranges, (end - start, start)))
        return end
