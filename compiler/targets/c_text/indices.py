"""The place of an element of a tensor, as C expressions: its coordinates along axes, and its position in reading order.

Both are numbers or expressions. `Indices` remembers which coordinates were derived from which position, so converting
back and forth gives `i` and not a long expression of the same value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compiler.ir.types import SAMPLE_BATCH, Dim, Shape, extent, merged

Coordinate = int | str  # along an axis, or along several merged axes in reading order
ElementIndex = tuple[Coordinate, ...]  # one coordinate along each axis


def atom(position: Coordinate) -> str:
    text = str(position)
    return text if re.fullmatch(r"(\(int\))?\w+", text) else f"({text})"


def narrow(position: Coordinate) -> Coordinate:
    """The index of an ElementwiseKernel, which has 64 bits, with 32: faster to divide."""
    return "(int)i" if position == "i" else position


def plus(a: Coordinate, b: Coordinate) -> Coordinate:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if isinstance(a, int):
        a, b = b, a
    if isinstance(b, int):
        return a if b == 0 else f"{a} + {b}" if b > 0 else f"{a} - {-b}"
    return f"{a} + {b}"


def minus(a: Coordinate, b: Coordinate) -> Coordinate:
    if isinstance(b, int):
        return plus(a, -b)
    return f"{a} - {atom(b)}"


def times(a: Coordinate, b: Coordinate) -> Coordinate:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 0 or b == 0:
        return 0
    if b == 1:
        return a
    return b if a == 1 else f"{atom(a)} * {atom(b)}"


def quotient(a: Coordinate, b: Coordinate) -> Coordinate:
    return a if b == 1 or a == 0 else f"{atom(a)} / {atom(b)}"


def remainder(a: Coordinate, b: Coordinate) -> Coordinate:
    return 0 if b == 1 or a == 0 else f"{atom(a)} % {atom(b)}"


def size_of(dim: Dim) -> Coordinate:
    return dim if isinstance(dim, int) else "B" if dim.factor == 1 else f"{dim.factor} * B"


def elements(shape: Sequence[Dim]) -> Coordinate:
    """The number of elements of a shape."""
    size = extent(shape)
    result: Coordinate = size.factor
    for _ in range(size.power):
        result = times(result, "B")
    return result


class Indices:
    """The index arithmetic of one kernel."""

    def __init__(self) -> None:
        # coordinates along axes of a shape -> the position they were derived from
        self.known: dict[tuple[ElementIndex, Shape], Coordinate] = {}

    def name(self, index: ElementIndex, shape: Shape, position: Coordinate) -> None:
        """Records the position in reading order that the coordinates along the axes of a shape come from; from now on
        it is known for adjacent ones of these axes, too."""
        kept = [(part, dim) for part, dim in zip(index, shape, strict=True) if dim != 1]
        runs = [(first, end) for end in range(len(kept) + 1) for first in range(end)]
        made = {(first, end): run_of(kept, first, end, position) for first, end in runs}
        for (first, end), whole in made.items():
            run = kept[first:end]
            self.known.setdefault((tuple(part for part, _ in run), tuple(dim for _, dim in run)), whole)
            for middle in range(first + 1, end):
                dims = [tuple(dim for _, dim in each) for each in (kept[first:middle], kept[middle:end])]
                if all(extent(each).power < 2 for each in dims):
                    parts = (made[first, middle], made[middle, end])
                    self.known.setdefault((parts, tuple(map(merged, dims))), whole)

    def split(self, position: Coordinate, shape: Shape) -> ElementIndex:
        """The coordinates along the axes of a shape of a position in reading order."""
        kept = [axis for axis, dim in enumerate(shape) if dim != 1]
        index: list[Coordinate] = [0] * len(shape)
        for number, axis in enumerate(kept):
            index[axis] = run_of([(0, shape[each]) for each in kept], number, number + 1, position, fresh=True)
        self.name(tuple(index), shape, position)
        return tuple(index)

    def join(self, index: ElementIndex, shape: Shape) -> Coordinate:
        """The position in reading order."""
        parts = [(part, dim) for part, dim in zip(index, shape, strict=True) if dim != 1]
        while (found := self.known_run(parts)) is not None:
            first, last, position = found
            if last - first == len(parts):
                return position
            parts[first:last] = [(position, merged(dim for _, dim in parts[first:last]))]
        result: Coordinate = 0
        for part, dim in parts:
            result = plus(times(result, size_of(dim)), part)
        return result

    def known_run(self, parts: Sequence[tuple[Coordinate, Dim]]) -> tuple[int, int, Coordinate] | None:
        """The longest run of two or more adjacent axes with a known position: first, end, position."""
        for length in range(len(parts), 1, -1):
            for first in range(len(parts) - length + 1):
                run = parts[first : first + length]
                position = self.known.get((tuple(part for part, _ in run), tuple(dim for _, dim in run)))
                if position is not None and (length == len(parts) or extent(dim for _, dim in run).power < 2):
                    return first, first + length, position
        return None

    def reshaped(self, index: ElementIndex, shape: Shape, old: Shape) -> ElementIndex:
        """The index in a tensor before it was reshaped to this shape."""
        result: list[Coordinate] = [0] * len(old)
        if extent(old).factor == 0:
            return tuple(result)
        for old_axes, axes in matching_axes(old, shape):
            position = self.join(tuple(index[axis] for axis in axes), tuple(shape[axis] for axis in axes))
            parts = self.split(position, tuple(old[axis] for axis in old_axes))
            for axis, part in zip(old_axes, parts, strict=True):
                result[axis] = part
        return tuple(result)


def run_of(
    kept: Sequence[tuple[Coordinate, Dim]], first: int, end: int, position: Coordinate, fresh: bool = False
) -> Coordinate:
    """The position along some adjacent axes, from that along all; `fresh`: single axes have no coordinates yet."""
    if end - first == 1 and not fresh:
        return kept[first][0]
    if (first, end) == (0, len(kept)):
        return position
    dims = [dim for _, dim in kept]
    rest = quotient(narrow(position), elements(dims[end:]))
    return rest if first == 0 else remainder(rest, elements(dims[first:end]))


def matching_axes(old: Shape, new: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes, ignoring those of one element, with the same number of elements in both shapes."""
    before, after = ([axis for axis, dim in enumerate(shape) if dim != 1] for shape in (old, new))
    while before:
        run, run_new = [before.pop(0)], [after.pop(0)]
        while (size := count(old, run)) != (size_new := count(new, run_new)):
            if size < size_new:
                run.append(before.pop(0))
            else:
                run_new.append(after.pop(0))
        yield run, run_new


def count(shape: Shape, axes: Sequence[int]) -> int:
    """The number of elements along some axes, for any batch."""
    return extent(shape[axis] for axis in axes).at(SAMPLE_BATCH)


def squeezed(shape: Iterable[Dim]) -> Shape:
    """The shape without axes of one element."""
    return tuple(dim for dim in shape if dim != 1)


@dataclass(frozen=True)
class NamedIndex:
    """The coordinates along the axes of a shape, as variables that are only declared if they are used."""

    index: ElementIndex
    declarations: Mapping[str, str]
    type: str = "int"

    def used_in(self, lines: Sequence[str]) -> Iterator[str]:
        words = set(re.findall(r"\w+", "\n".join(lines)))
        return (f"const {self.type} {name} = {text};" for name, text in self.declarations.items() if name in words)


def named_index(indices: Indices, shape: Shape, position: str, wanted: str = "i") -> NamedIndex:
    """Names for the coordinates along the axes of a position in reading order."""
    parts = Indices().split(position, shape)
    if len(squeezed(shape)) < 2:
        return NamedIndex(parts, {})
    names = [part if part == 0 else f"{wanted}{axis}" for axis, part in enumerate(parts)]
    indices.name(tuple(names), shape, position)
    return NamedIndex(tuple(names), {str(n): str(part) for n, part in zip(names, parts, strict=True) if n != 0})
