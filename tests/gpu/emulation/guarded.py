"""Guarded copies of arrays: reads and writes beyond their ends are detected.

A copy is at one end of some pages. Memory before and after these pages is not accessible; their unused words are filled
with a NaN, a different one for every copy, and must be unchanged afterwards.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.gpu.emulation.launches import Bytes

PAGE = mmap.PAGESIZE
AROUND = 2**24  # bytes of address space, on each side
NO_ACCESS = 0
ALL_ONES = 2**32 - 1  # a NaN, as are the words a little below
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Pages:
    """Pages between inaccessible addresses; they are reused, and never unmapped."""

    free: dict[int, list[Pages]] = {}  # noqa: RUF012  by number of pages

    def __init__(self, count: int):
        self.count = count
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        start = libc.mmap(None, count * PAGE + 2 * AROUND, NO_ACCESS, flags, -1, 0)
        self.address = start + AROUND
        assert libc.mprotect(self.address, count * PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        self.bytes = bytes_at(self.address, count * PAGE)

    @classmethod
    def take(cls, count: int) -> Pages:
        return free.pop() if (free := cls.free.get(count)) else cls(count)

    def release(self) -> None:
        self.free.setdefault(self.count, []).append(self)


@dataclass
class Guarded:
    """A copy of the bytes of one array, or of several that overlap."""

    original: np.ndarray  # u8
    pages: Pages
    start: int  # in the pages
    mark: int  # the word around the copy

    @property
    def address(self) -> int:
        return self.pages.address + self.start

    @property
    def copy(self) -> np.ndarray:
        return self.pages.bytes[self.start : self.start + self.original.size]

    def around(self) -> tuple[np.ndarray, np.ndarray]:
        """The words before and after the copy."""
        words, end = self.pages.bytes.view(np.uint32), self.start + self.original.size
        return words[: self.start // 4], words[-(-end // 4) :]

    def is_intact(self) -> bool:
        """Whether the words around the copy are unchanged."""
        return all((part == self.mark).all() for part in self.around())


def bytes_at(address: int, size: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def guard(span: Bytes, number: int, alignment: int, at_end: bool) -> Guarded:
    """A copy of some bytes, at the end or the start of its pages as far as alignment allows."""
    first, last = span
    pages = Pages.take(-(-(last - first) // PAGE))
    start = (pages.bytes.size - (last - first)) // alignment * alignment if at_end else 0
    guarded = Guarded(bytes_at(first, last - first), pages, start, ALL_ONES - number)
    for part in guarded.around():
        part[:] = guarded.mark
    guarded.copy[:] = guarded.original
    return guarded


def merged(spans: Sequence[Bytes]) -> list[Bytes]:
    """Overlapping spans joined."""
    result: list[Bytes] = []
    for first, last in sorted(spans):
        if result and first < result[-1][1]:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return result
