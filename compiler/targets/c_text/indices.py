"""Where an element of a tensor lies, as C expressions: positions along axes, and positions in reading order.

A position is a number or an expression. `Indices` remembers which positions along axes were made from which position in
reading order, so that going back and forth leaves `i` and not a long expression that is equal to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from compiler.ir.types import Batch, Dim, Shape, extent, merged

Position = int | str
Index = tuple[Position, ...]  # one position along each axis


def atom(position: Position) -> str:
    text = str(position)
    return text if re.fullmatch(r"(\(int\))?\w+", text) else f"({text})"


def narrow(position: Position) -> Position:
    """Of an ElementwiseKernel's index, which has 64 bits, those that positions have: quicker to divide."""
    return "(int)i" if position == "i" else position


def plus(a: Position, b: Position) -> Position:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if isinstance(a, int):
        a, b = b, a
    if isinstance(b, int):
        return a if b == 0 else f"{a} + {b}" if b > 0 else f"{a} - {-b}"
    return f"{a} + {b}"


def minus(a: Position, b: Position) -> Position:
    if isinstance(b, int):
        return plus(a, -b)
    return f"{a} - {atom(b)}"


def times(a: Position, b: Position) -> Position:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 0 or b == 0:
        return 0
    if b == 1:
        return a
    return b if a == 1 else f"{atom(a)} * {atom(b)}"


def quotient(a: Position, b: Position) -> Position:
    return a if b == 1 or a == 0 else f"{atom(a)} / {atom(b)}"


def remainder(a: Position, b: Position) -> Position:
    return 0 if b == 1 or a == 0 else f"{atom(a)} % {atom(b)}"


def size_of(dim: Dim) -> Position:
    return dim if isinstance(dim, int) else "B" if dim.factor == 1 else f"{dim.factor} * B"


def elements(shape: Sequence[Dim]) -> Position:
    """How many elements a shape has."""
    size = extent(shape)
    result: Position = size.factor
    for _ in range(size.power):
        result = times(result, "B")
    return result


class Indices:
    """The arithmetic of one kernel."""

    def __init__(self) -> None:
        self.known: dict[tuple[Index, Shape], Position] = {}  # positions along axes -> the one they were made from

    def name(self, index: Index, shape: Shape, position: Position) -> None:
        """From now on positions along the axes of a shape are known to make up one in reading order, and so are those
        along some neighbouring axes."""
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

    def split(self, position: Position, shape: Shape) -> Index:
        """The positions along the axes of a shape."""
        kept = [axis for axis, dim in enumerate(shape) if dim != 1]
        index: list[Position] = [0] * len(shape)
        for number, axis in enumerate(kept):
            index[axis] = run_of([(0, shape[each]) for each in kept], number, number + 1, position, fresh=True)
        self.name(tuple(index), shape, position)
        return tuple(index)

    def join(self, index: Index, shape: Shape) -> Position:
        """The position in reading order."""
        parts = [(part, dim) for part, dim in zip(index, shape, strict=True) if dim != 1]
        while (found := self.known_run(parts)) is not None:
            first, last, position = found
            if last - first == len(parts):
                return position
            parts[first:last] = [(position, merged(dim for _, dim in parts[first:last]))]
        result: Position = 0
        for part, dim in parts:
            result = plus(times(result, size_of(dim)), part)
        return result

    def known_run(self, parts: Sequence[tuple[Position, Dim]]) -> tuple[int, int, Position] | None:
        """The longest run of two or more neighbouring axes that are known as one position: first, end, position."""
        for length in range(len(parts), 1, -1):
            for first in range(len(parts) - length + 1):
                run = parts[first : first + length]
                position = self.known.get((tuple(part for part, _ in run), tuple(dim for _, dim in run)))
                if position is not None and (length == len(parts) or extent(dim for _, dim in run).power < 2):
                    return first, first + length, position
        return None

    def reshaped(self, index: Index, shape: Shape, old: Shape) -> Index:
        """The index in a tensor before it was reshaped to a shape."""
        result: list[Position] = [0] * len(old)
        if extent(old).factor == 0:
            return tuple(result)
        for old_axes, axes in matching_axes(old, shape):
            position = self.join(tuple(index[axis] for axis in axes), tuple(shape[axis] for axis in axes))
            parts = self.split(position, tuple(old[axis] for axis in old_axes))
            for axis, part in zip(old_axes, parts, strict=True):
                result[axis] = part
        return tuple(result)


def run_of(
    kept: Sequence[tuple[Position, Dim]], first: int, end: int, position: Position, fresh: bool = False
) -> Position:
    """The position along some neighbouring axes together, of one along all; `fresh`: where that of one has no name."""
    if end - first == 1 and not fresh:
        return kept[first][0]
    if (first, end) == (0, len(kept)):
        return position
    dims = [dim for _, dim in kept]
    rest = quotient(narrow(position), elements(dims[end:]))
    return rest if first == 0 else remainder(rest, elements(dims[first:end]))


def matching_axes(old: Shape, new: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes, but for those of one element, that hold as many elements in both shapes."""
    before, after = ([axis for axis, dim in enumerate(shape) if dim != 1] for shape in (old, new))
    while before:
        taken, taken_new = [before.pop(0)], [after.pop(0)]
        while (size := count(old, taken)) != (size_new := count(new, taken_new)):
            if size < size_new:
                taken.append(before.pop(0))
            else:
                taken_new.append(after.pop(0))
        yield taken, taken_new


def count(shape: Shape, axes: Sequence[int]) -> int:
    """The elements along some axes, with a large prime in the place of the batch."""
    return extent(shape[axis] for axis in axes).at(1_000_003)


def squeezed(shape: Shape) -> Shape:
    """The axes of more than one element."""
    return tuple(dim for dim in shape if dim != 1)


def varies(shape: Shape) -> bool:
    """Whether the number of elements depends on the batch."""
    return any(isinstance(dim, Batch) for dim in shape)
