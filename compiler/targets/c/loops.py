"""Loops over the elements of a shape: runs of axes that are one loop each, and maps, which are nothing but such loops.

    [B,24,24,24] + [24]     for r < B * 576, for c < 24       a loop over a run of axes, another for the broadcast one
    [B,512] * [B,512]       for k < B * 512                   all axes are one run

The innermost loop has no dependences between its iterations, so the compiler makes vectors of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from compiler.ir.graph import Value, readers_of
from compiler.ir.types import Shape
from compiler.targets.c.elements import SIMD, Array, CElements, RegionCall, shares
from compiler.targets.c_text.elements import INDENT
from compiler.targets.c_text.indices import Coordinate, ElementIndex, Indices, NamedIndex, elements, named_index
from compiler.targets.c_text.regions import loop_shape, parts_of, typical

ALONE = 4096  # elements that one thread computes, since dividing them costs more
MANY = 16  # iterations that are enough to be divided among threads
MOST_CONVERTED = 1024  # iterations of a short loop
UNIT = 64  # elements of the innermost loop that stay together
Axes = tuple[int, ...]


class AxisRun:
    """Adjacent axes of a shape that one loop goes over."""

    def __init__(self, indices: Indices, shape: Shape, axes: Axes, name: str):
        self.axes, self.name = axes, name
        self.shape = tuple(shape[axis] for axis in axes)
        parts = named_index(indices, self.shape, name, f"{name}_")
        single = len([dim for dim in self.shape if dim != 1]) == 1
        index = tuple(name if dim != 1 else 0 for dim in self.shape) if single else parts.index
        self.parts = NamedIndex(index, {} if single else parts.declarations, "long")

    @property
    def size(self) -> Coordinate:
        return elements(self.shape)

    @property
    def typical(self) -> int:
        return typical(self.shape)


def index_of(shape: Shape, runs: Sequence[AxisRun]) -> ElementIndex:
    """The coordinates along all axes."""
    found: dict[int, Coordinate] = {}
    for run in runs:
        found |= zip(run.axes, run.parts.index, strict=True)
    return tuple(found.get(axis, 0) for axis in range(len(shape)))


@contextmanager
def nested(e: CElements, runs: Sequence[AxisRun], divided: AxisRun | None, simd: str = SIMD) -> Iterator[None]:
    """Loops over runs, outermost first; of the divided one only the share of this thread."""
    first = len(e.lines)
    with ExitStack() as stack:
        for run in runs:
            bounds = (f"{run.name}_from", f"{run.name}_to") if run is divided else (0, run.size)
            last = run is runs[-1]
            stack.enter_context(e.over(run.name, *bounds, simd if last else "", room_of(run) if last else 0))
        inside = len(e.lines)
        yield
        e.lines[inside:inside] = [INDENT * e.depth + line for line in declared(runs, e.lines[first:])]


def room_of(run: AxisRun) -> int:
    """The iterations of a short loop, whose bytes are converted outside of it; 0 for long loops."""
    return run.size if isinstance(run.size, int) and run.size <= MOST_CONVERTED else 0


def declared(runs: Sequence[AxisRun], lines: Sequence[str]) -> list[str]:
    """The coordinates along single axes that some lines use."""
    return [line for run in runs for line in run.parts.used_in(lines)]


def layouts(shape: Shape) -> list[list[Axes]]:
    """Ways to divide the axes into runs, the fastest first."""
    axes = tuple(axis for axis, dim in enumerate(shape) if dim != 1)
    single = [(axis,) for axis in axes]
    return [[axes], [axes[:-1], axes[-1:]], single] if len(axes) > 1 else [single]


def splits(runs: Sequence[AxisRun], lines: Sequence[str]) -> bool:
    """Whether lines use single coordinates of a run of several axes, which are divisions."""
    return any(any(run.parts.used_in(lines)) for run in runs)


@contextmanager
def division(e: CElements, runs: Sequence[AxisRun], count: int) -> Iterator[AxisRun | None]:
    """The run that is divided among the threads, after its bounds are declared; None if one thread does all."""
    if count < ALONE or not runs:
        with e.block("if (s->part == 0)"):
            yield None
        return
    divided = next((run for run in runs if run.typical >= MANY), max(runs, key=lambda run: run.typical))
    for line in shares(divided.name, divided.size, UNIT if divided is runs[-1] else 1):
        e.write(line)
    yield divided


def without_unused(lines: Sequence[str]) -> list[str]:
    """The lines without variables that no later line uses."""
    kept: list[str] = []
    used: set[str] = set()
    for line in reversed(lines):
        found = re.fullmatch(r"\s*const \w+(?: \w+)? (\w+) = (.*);", line)
        if found and found[1] not in (*used, "UNUSED"):
            continue
        used.update(re.findall(r"\w+", line))
        kept.append(line)
    return kept[::-1]


# Maps -----------------------------------------------------------------------------------------------------------------


def map_lines(call: RegionCall) -> list[str]:
    """The statements of a region whose results are computed element by element; shapes one after another."""
    by_shape: dict[Shape, list[tuple[Value, Array]]] = {}
    readers = readers_of(call.body)
    for value, array in zip(call.body.outputs.values(), call.written, strict=True):
        if 0 not in value.type.shape:
            by_shape.setdefault(loop_shape(value, readers), []).append((value, array))
    found = [loops_over(call, shape, results) for shape, results in by_shape.items()]
    if len(found) == 1:
        return found[0]
    return [line for each in found for line in ("{", *(INDENT + line for line in each), "}")]


def loops_over(call: RegionCall, shape: Shape, results: Sequence[tuple[Value, Array]]) -> list[str]:
    """Loops that compute results of one shape: over the longest runs whose single coordinates are not needed."""
    lines: list[str] = []
    for axes in layouts(shape):
        indices = Indices()
        e = CElements(call, indices)
        runs = [AxisRun(indices, shape, each, f"i{number}") for number, each in enumerate(axes)]
        e.hoist_scalars()
        with division(e, runs, typical(shape)) as divided, nested(e, runs, divided):
            index = index_of(shape, runs)
            position, stores = indices.join(index, shape), []
            for value, array in results:
                for part, place in parts_of(value, shape):
                    text = e.at(part, indices.reshaped(index, shape, part.type.shape))
                    base = e.base_of(value.type, index) if part is value and len(index) == value.type.rank else None
                    stores.append((array, place(indices, index, position), text, base))
            for store in stores:  # after all reads
                e.store(*store)
        lines = without_unused(e.lines)
        if not splits(runs, lines):
            break
    return lines
