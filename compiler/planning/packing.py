"""Packing: offsets in one arena for blocks with lifetimes, and a lower bound on the size of the arena.

The best packing is hard to find; several simple ones are tried, and the smallest arena wins:

    largest first     each block, by decreasing size, at the lowest address that is free during its whole lifetime.
                      Mostly optimal, but every block is compared with many others: only for up to `FEW` blocks.
    longest first     the same by decreasing length of lifetime.
    forward in time   each block, when its lifetime begins, in the smallest free range that fits, as allocators do.
                      Optimal for nested lifetimes, such as those of a forward and a backward pass.
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
    """A range of bytes: its value, its size, and the first and last node that need it."""

    value: Value
    bytes: int
    first: int
    last: int
    offset: int = -1

    @property
    def end(self) -> int:
        return self.offset + self.bytes


Lifetime = tuple[int, int, int]  # bytes, first, last
# Offsets for lifetimes sorted by decreasing size; sizes are multiples of ALIGNMENT and not 0.
Packing = Callable[[Sequence[Lifetime]], list[int]]


def assign_offsets(blocks: Iterable[Block], base: int) -> int:
    """Gives every block its offset; returns the end of the arena. The order of the blocks does not matter."""
    ordered = sorted(blocks, key=lambda block: (-block.bytes, block.first, block.last))
    filled = [block for block in ordered if block.bytes]
    lifetimes = [(aligned(block.bytes), block.first, block.last) for block in filled]
    least, size, offsets = most_live(lifetimes), None, []
    for packing in FOR_FEW + FOR_ALL if len(lifetimes) <= FEW else FOR_ALL:
        found = packing(lifetimes)
        found_size = max((at + lifetime[0] for at, lifetime in zip(found, lifetimes, strict=True)), default=0)
        if size is None or found_size < size:
            size, offsets = found_size, found
        if size == least:
            break
    for block in ordered:
        block.offset = base  # for blocks without bytes; the others follow
    for block, offset in zip(filled, offsets, strict=True):
        block.offset = base + offset
    return base + (size or 0)


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def peak_of_live(blocks: Iterable[Block]) -> int:
    """The maximum of live bytes over time: no packing can be smaller."""
    return most_live((block.bytes, block.first, block.last) for block in blocks)


def most_live(lifetimes: Iterable[Lifetime]) -> int:
    events: list[tuple[int, int]] = []
    for size, first, last in lifetimes:
        events += [(first, size), (last + 1, -size)]
    live = peak = 0
    for _, change in sorted(events):
        live += change
        peak = max(peak, live)
    return peak


# Packings -------------------------------------------------------------------------------------------------------------


def largest_first(lifetimes: Sequence[Lifetime]) -> list[int]:
    return first_fit(lifetimes)


def longest_first(lifetimes: Sequence[Lifetime]) -> list[int]:
    return in_order(lifetimes, lambda size, first, last: first - last)


def largest_area_first(lifetimes: Sequence[Lifetime]) -> list[int]:
    """By bytes times duration."""
    return in_order(lifetimes, lambda size, first, last: size * (first - last - 1))


def in_order(lifetimes: Sequence[Lifetime], key: Callable[[int, int, int], int]) -> list[int]:
    order = sorted(range(len(lifetimes)), key=lambda index: key(*lifetimes[index]))
    offsets = first_fit([lifetimes[index] for index in order])
    return [offset for _, offset in sorted(zip(order, offsets, strict=True))]


def first_fit(lifetimes: Sequence[Lifetime]) -> list[int]:
    """Each block in turn at the lowest address that is free during its whole lifetime."""
    offsets: list[int] = []
    placed: list[tuple[int, int, int, int]] = []  # by address: start, first, last, end
    for size, first, last in lifetimes:
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


def forward_in_time(lifetimes: Sequence[Lifetime]) -> list[int]:
    offsets = [0] * len(lifetimes)
    space = FreeSpace()
    used: list[tuple[int, int, int]] = []  # a heap: last, start, end
    for index in sorted(range(len(lifetimes)), key=lambda index: lifetimes[index][1]):
        size, first, last = lifetimes[index]
        while used and used[0][0] < first:
            _, start, end = heappop(used)
            space.free(start, end)
        offsets[index] = start = space.allocate(size)
        heappush(used, (last, start, start + size))
    return offsets


def backward_in_time(lifetimes: Sequence[Lifetime]) -> list[int]:
    return forward_in_time([(size, -last, -first) for size, first, last in lifetimes])


FOR_FEW: tuple[Packing, ...] = (largest_first, longest_first, largest_area_first)
FOR_ALL: tuple[Packing, ...] = (forward_in_time, backward_in_time)


class FreeSpace:
    """The free ranges below `top`, above which everything is free; adjacent ranges are merged."""

    def __init__(self) -> None:
        self.top = 0
        self.ranges: list[tuple[int, int]] = []  # (bytes, start), sorted
        self.ends: dict[int, int] = {}  # start -> end
        self.starts: dict[int, int] = {}  # end -> start

    def allocate(self, size: int) -> int:
        """Allocates this many bytes in the smallest range that fits, the lowest if there are several. Their start."""
        index = bisect_left(self.ranges, (size, 0))
        if index == len(self.ranges):
            self.top += size
            return self.top - size
        _, start = self.ranges[index]
        end = self.remove(start)
        if end > start + size:
            self.add(start + size, end)
        return start

    def free(self, start: int, end: int) -> None:
        """Frees an allocated range."""
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
