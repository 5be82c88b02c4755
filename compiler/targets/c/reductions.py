"""Reductions: regions that combine elements along some axes.

The loops over kept positions are outside, those over reduced ones inside:

    for k < B { for r < 10 { sum += x[k * 10 + r]; } y[k] = sum; }            adjacent elements are reduced
    for r < B * 576 { for c < 24 { sum[c] += x[r * 24 + c]; } }               adjacent elements are kept: columns

Long sums are added in parts of f32, which are added in f64. Threads divide the kept positions. If these are few, and
nothing waits for the results, threads divide the reduced positions; the first then combines what all of them found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compiler.ir.graph import Node, Value
from compiler.ir.types import extent
from compiler.targets.c.elements import ARRAY_TYPES, SIMD, SUM_TYPES, Array, CElements, RegionCall, shares
from compiler.targets.c.loops import ALONE, MANY, Axes, AxisRun, declared, index_of, nested, splits, without_unused
from compiler.targets.c_text.elements import INDENT
from compiler.targets.c_text.indices import Coordinate, Indices, squeezed
from compiler.targets.c_text.regions import ELEMENT, KEPT, SCALAR, Reduction, typical
from compiler.targets.c_text.scalars import NANS, least

KEPT_BY, REDUCED_BY, BY_ONE = "kept", "reduced", "one"  # what threads divide
STRIP = "STRIP"  # elements that are added in f32 before they are added in f64, of functions.h
ROWS = 64  # that are added in f32, of columns
COLUMNS = 64  # that are kept at the same time, unless all of them are
MOST_COLUMNS = 256  # that are
LONG = 16 * ALONE  # elements that one thread should not visit alone


def mode_of(reduction: Reduction) -> str:
    """What threads divide."""
    if typical(reduction.shape) < ALONE:
        return BY_ONE
    kept_runs = [axes for axes, is_reduced in runs_of(reduction, fine=False) if not is_reduced]
    alike = all(node.op.reduces in ("sum", "max") for node in reduction.rounds[0])
    nothing_waits = len(reduction.rounds) == 1 and not reduction.waiting
    few = len(kept_runs) == (not reduction.along_last) and not extent(reduction.kept_shape).power
    if alike and nothing_waits and few and units_of(reduction) < MANY:
        return REDUCED_BY
    return KEPT_BY if units_of(reduction) > 1 else BY_ONE


def units_of(reduction: Reduction) -> int:
    """Into how many pieces the kept positions can be divided: rows, or columns of some vectors."""
    return typical(reduction.kept_shape) // (1 if reduction.along_last else MANY)


def waits_too_long(reduction: Reduction) -> bool:
    """Whether few threads would do all the work, because elements depend on long sums."""
    return mode_of(reduction) != REDUCED_BY and units_of(reduction) < MANY and typical(reduction.shape) > LONG


def runs_of(reduction: Reduction, fine: bool) -> list[tuple[Axes, bool]]:
    """Runs of adjacent axes that are all reduced or all kept; `fine`: each axis is one."""
    runs: list[tuple[Axes, bool]] = []
    for axis, dim in enumerate(reduction.shape):
        is_reduced = axis in reduction.axes
        if dim == 1:
            continue
        if runs and runs[-1][1] == is_reduced and not fine:
            runs[-1] = ((*runs[-1][0], axis), is_reduced)
        else:
            runs.append(((axis,), is_reduced))
    return runs


def partial_bytes(reduction: Reduction) -> int:
    """Workspace of a thread for the sums that all threads add."""
    if mode_of(reduction) == REDUCED_BY:
        return 8 * len(reduction.rounds[0]) * extent(reduction.kept_shape).at(1)
    return 8 * len(reduction.totals)


def reduction_lines(call: RegionCall, reduction: Reduction) -> list[str]:
    for fine in (False, True):
        writer = ReductionText(call, reduction, fine)
        lines = without_unused(writer.lines())
        if not splits(writer.runs, lines):
            break
    return lines


class ReductionText:
    """The statements of one reduction."""

    def __init__(self, call: RegionCall, reduction: Reduction, fine: bool):
        self.call, self.reduction = call, reduction
        self.indices = Indices()
        self.e = CElements(call, self.indices)
        self.mode = mode_of(reduction)
        self.stored: set[str] = set()  # names of outputs already written
        found = runs_of(reduction, fine)
        inner = None if found[-1][1] else len(found) - 1
        names = [
            "c" if number == inner else f"{'r' if is_reduced else 'k'}{number}"
            for number, (_, is_reduced) in enumerate(found)
        ]
        self.e.used |= {"c", *names, *(f"{name}{end}" for name in names for end in ("_from", "_to", "_end"))}
        shape = reduction.shape
        self.runs = [AxisRun(self.indices, shape, axes, name) for (axes, _), name in zip(found, names, strict=True)]
        self.reduced = [run for run, (_, is_reduced) in zip(self.runs, found, strict=True) if is_reduced]
        self.inner = self.runs[-1] if inner is not None else None
        self.outer = [run for run in self.runs if run not in self.reduced and run is not self.inner]
        self.index = index_of(shape, self.runs)
        kept = [run for run in self.runs if run not in self.reduced]
        self.kept_index = index_of(shape, kept)
        self.columns: Coordinate = 1  # kept at the same time
        if self.inner:
            size = self.inner.size
            self.columns = (
                size if isinstance(size, int) and (size <= MOST_COLUMNS or self.mode == REDUCED_BY) else COLUMNS
            )
        self.in_blocks = self.inner is not None and self.columns != self.inner.size
        self.divided = self.divided_run()

    def divided_run(self) -> AxisRun | None:
        """The run that threads divide."""
        if self.mode == BY_ONE:
            return None
        if self.mode == REDUCED_BY:
            return max(self.reduced, key=lambda run: min(run.typical, MANY * MANY))
        many = next((run for run in self.outer if run.typical >= MANY), None)
        return many or self.inner or max(self.outer, key=lambda run: run.typical)

    @property
    def column(self) -> str:
        return "c - c_first" if self.in_blocks else "c"

    # The whole

    def lines(self) -> list[str]:
        e = self.e
        e.hoist_scalars()
        if self.mode == BY_ONE:
            e.write("if (s->part) return;")
        if self.divided:
            inside = self.divided is self.inner or (self.divided is self.reduced[-1] and self.inner is None)
            for line in shares(self.divided.name, self.divided.size, MANY if inside else 1):
                e.write(line)
        totals = [self.accumulator(node, "total") for node in self.reduction.totals]
        if self.mode == REDUCED_BY:
            self.over_all_threads(totals)
        else:
            with self.kept_positions():
                self.visit(totals)
        self.finish(totals)
        return e.lines

    def accumulator(self, node: Node, wanted: str) -> str:
        name = self.e.fresh(wanted)
        self.e.write(f"{SUM_TYPES[node.result.type.dtype]} {name} = 0;")
        return name

    def bounds(self, run: AxisRun) -> tuple[Coordinate, Coordinate]:
        return (f"{run.name}_from", f"{run.name}_to") if run is self.divided else (0, run.size)

    @contextmanager
    def kept_positions(self) -> Iterator[None]:
        """The loops over kept positions, of which this thread has a share; columns in blocks."""
        e = self.e
        with nested(e, self.outer, self.divided, simd=""):
            if self.inner is None or not self.in_blocks:
                yield
                return
            start, end = self.bounds(self.inner)
            with e.block(f"for (long c_first = {start}; c_first < {end}; c_first += {COLUMNS})"):
                e.write(f"const long c_end = smaller(c_first + {COLUMNS}, {end});")
                yield

    @contextmanager
    def over_columns(self, simd: str = SIMD) -> Iterator[None]:
        """The innermost loop over kept columns, if there are any."""
        if self.inner is None:
            yield
            return
        start, end = ("c_first", "c_end") if self.in_blocks else self.bounds(self.inner)
        first = len(self.e.lines)
        with self.e.over("c", start, end, simd, self.columns if isinstance(self.columns, int) else 0):
            inside = len(self.e.lines)
            yield
            self.indent(inside, declared([self.inner], self.e.lines[first:]))

    def indent(self, place: int, lines: Sequence[str]) -> None:
        """Inserts lines at a place of the block."""
        self.e.lines[place:place] = [INDENT * self.e.depth + line for line in lines]

    def visit(self, totals: Sequence[str]) -> None:
        """All rounds at a kept position, or at a block of columns, and then what depends on them."""
        for number, nodes in enumerate(self.reduction.rounds):
            self.hoist(number)
            self.round(number, nodes)
        last = len(self.reduction.rounds)
        if any(self.outputs(ELEMENT)):
            self.hoist(last)
            with nested(self.e, self.reduced, None, "" if self.inner else SIMD), self.over_columns():
                self.store_elements(last)
        self.write_kept(totals)

    # Rounds

    def round(self, number: int, nodes: Sequence[Node]) -> None:
        """Combines the elements of a round, and writes the elements that are known by then."""
        combined = [Combined(self, node) for node in nodes]
        for each in combined:
            each.declare()
        self.loop_over_elements(number, combined)
        for each in combined:
            each.finish()

    def loop_over_elements(self, number: int, combined: Sequence[Combined]) -> None:
        """Loops over the reduced positions; the innermost in strips, whose sums are added in more digits."""
        *outer, last = self.reduced
        with nested(self.e, outer, self.divided, simd=""):
            start, end = self.bounds(last)
            if not any(each.in_parts for each in combined) or (isinstance(end, int) and end <= ROWS):
                self.strip(number, combined, last, start, end)
                return
            length = STRIP if self.inner is None else ROWS
            name = self.e.fresh(f"{last.name}_strip")
            with self.e.block(f"for (long {name} = {start}; {name} < {end}; {name} += {length})"):
                self.e.write(f"const long {last.name}_end = smaller({name} + {length}, {end});")
                self.strip(number, combined, last, name, f"{last.name}_end")

    def strip(
        self, number: int, combined: Sequence[Combined], last: AxisRun, start: Coordinate, end: Coordinate
    ) -> None:
        """The innermost loops, between declaring the parts of sums and adding them."""
        e = self.e
        for each in combined:
            each.begin_part()
        simd = "" if any(each.kind == "argmax" for each in combined) else SIMD
        clauses = "".join(each.clause for each in combined) if simd and self.inner is None else ""
        first = len(e.lines)
        with e.over(last.name, start, end, simd + clauses if self.inner is None else ""):
            inside = len(e.lines)
            with self.over_columns(simd):
                for each in combined:
                    each.add()
                if number == len(self.reduction.rounds) - 1:
                    self.store_elements(number)
            self.indent(inside, declared([last], e.lines[first:]))
        for each in combined:
            each.end_part()

    def at(self, value: Value) -> str:
        """An element at the position of the loops."""
        return self.e.at(value, self.indices.reshaped(self.index, self.reduction.shape, value.type.shape))

    def base_of(self, value: Value) -> Coordinate | None:
        index = self.indices.reshaped(self.index, self.reduction.shape, value.type.shape)
        return self.e.base_of(value.type, index)

    def at_kept(self, value: Value) -> str:
        kept = self.reduction.kept_shape
        return self.e.at(value, self.indices.reshaped(self.kept_index, kept, value.type.shape))

    def hoist(self, rounds: int) -> None:
        """Computes values of kept positions before the loops over elements that read them."""
        kept = squeezed(self.reduction.kept_shape)
        known = {value for node in self.call.body.nodes for value in node.results if self.is_kept(node, rounds, kept)}
        readers = [node for node in self.call.body.nodes if not known.issuperset(node.results)]
        wanted = dict.fromkeys(value for node in readers for value in node.operands if value in known)
        wanted = {value: None for value in wanted if value not in self.e.reduced}
        if self.inner is None:
            for value in wanted:
                self.at_kept(value)
            return
        names = {}
        for value in wanted:
            names[value] = self.e.fresh("kept")
            self.e.write(f"{ARRAY_TYPES[value.type.dtype]} {names[value]}[{self.columns}];")
        if names:
            with self.over_columns():
                for value, name in names.items():
                    self.e.write(f"{name}[{self.column}] = {self.at_kept(value)};")
        for value, name in names.items():
            index = self.indices.reshaped(self.kept_index, self.reduction.kept_shape, value.type.shape)
            self.e.know(value, index, f"{name}[{self.column}]")

    def is_kept(self, node: Node, rounds: int, kept: tuple) -> bool:
        """Whether a node computes values of kept positions that are known after some rounds."""
        alike = bool(kept) and squeezed(node.results[0].type.shape) == kept
        return alike and self.reduction.after[node] <= rounds

    # Division of the reduced positions

    def over_all_threads(self, totals: Sequence[str]) -> None:
        """Each thread reduces its share; the first combines what they found."""
        (nodes,) = self.reduction.rounds
        self.hoist(0)
        combined = [Combined(self, node, number) for number, node in enumerate(nodes)]
        for each in combined:
            each.declare()
        self.loop_over_elements(0, combined)
        for each in combined:
            each.publish()
        self.e.write("barrier(s);")
        self.e.write("if (s->part) return;")
        for each in combined:
            each.add_threads()
            each.finish()
        self.write_kept(totals)

    # Results

    def outputs(self, level: str) -> Iterator[tuple[str, Value, Array]]:
        for (name, value), array in zip(self.call.body.outputs.items(), self.call.written, strict=True):
            if self.reduction.levels[name] == level and name not in self.stored:
                yield name, value, array

    def store_elements(self, rounds: int) -> None:
        """Writes the elements, after all reads, if none of them needs more than this many rounds."""
        results = [*self.outputs(ELEMENT)]
        if any(self.reduction.after_of(value) > rounds for _, value, _ in results):
            return
        texts = [(array, self.at(value), self.base_of(value)) for _, value, array in results]
        place = self.indices.join(self.index, self.reduction.shape)
        for array, text, base in texts:
            self.e.store(array, place, text, base)
        self.stored |= {name for name, _, _ in results}

    def write_kept(self, totals: Sequence[str]) -> None:
        """Writes values of kept positions, and adds to the totals over them."""
        results = [
            each for each in self.outputs(KEPT) if self.reduction.after_of(each[1]) <= len(self.reduction.rounds)
        ]
        if not results and not totals:
            return
        clause = "".join(f" reduction(+:{name})" for name in totals)
        with self.over_columns(SIMD + clause):
            texts = [(array, self.at_kept(value)) for _, value, array in results]
            place = self.indices.join(self.kept_index, self.reduction.kept_shape)
            for node, name in zip(self.reduction.totals, totals, strict=True):
                self.e.write(f"{name} += {' * '.join(self.at_kept(operand) for operand in node.operands)};")
            for array, text in texts:
                self.e.write(f"{array.name}[{place}] = {text};")
        self.stored |= {name for name, _, _ in results}

    def finish(self, totals: Sequence[str]) -> None:
        """Adds the totals of all threads; the first thread writes the scalars."""
        e = self.e
        scalars = [*self.outputs(SCALAR)]
        if totals and self.mode == KEPT_BY:
            for number, (node, name) in enumerate(zip(self.reduction.totals, totals, strict=True)):
                e.write(f"{partial(node, 's->part')}[{number}] = {name};")
            e.write("barrier(s);")
        if not scalars:
            return
        if self.mode == KEPT_BY:
            e.write("if (s->part) return;")
        for number, (node, name) in enumerate(zip(self.reduction.totals, totals, strict=True)):
            if self.mode == KEPT_BY:
                e.write(f"for (int p = 1; p < s->parts; ++p) {name} += {partial(node, 'p')}[{number}];")
            e.reduced[node.result] = f"({ARRAY_TYPES[node.result.type.dtype]}){name}"
        texts = [(array, e.at(value, (0,) * value.type.rank)) for _, value, array in scalars]
        for array, text in texts:
            e.write(f"{array.name}[0] = {text};")


def partial(node: Node, part: str) -> str:
    """The results of a thread in its workspace."""
    return f"(({SUM_TYPES[node.result.type.dtype]} *)workspace_of(s, {part}))"


class Combined:
    """One node that reduces, while its elements are combined: a variable, or an array of columns."""

    def __init__(self, writer: ReductionText, node: Node, number: int = 0):
        self.writer, self.node, self.number = writer, node, number
        self.e, self.dtype = writer.e, node.result.type.dtype
        self.kind = node.op.reduces
        self.in_parts = self.kind == "sum" and self.dtype == "f32"
        self.checks_nan = self.kind == "max" and node.result.type.is_float and writer.inner is None
        self.type = SUM_TYPES[self.dtype] if self.kind == "sum" else ARRAY_TYPES[node.operands[0].type.dtype]
        self.name = self.e.fresh({"sum": "sum", "max": "most", "argmax": "most"}[self.kind])
        self.other = self.e.fresh({"sum": "part", "max": "nans", "argmax": "place"}[self.kind])
        self.in_workspace = writer.mode == REDUCED_BY

    @property
    def at_column(self) -> str:
        return "" if self.writer.inner is None else f"[{self.writer.column}]"

    @property
    def first(self) -> str:
        return "0" if self.kind == "sum" else least(self.node.operands[0].type.dtype)

    def declare(self) -> None:
        """The variable, with the value before any element."""
        e, columns = self.e, self.writer.columns
        if self.in_workspace:
            where = partial(self.node, "s->part")
            self.type = SUM_TYPES[self.dtype]
            if self.writer.inner is None:
                e.write(f"{self.type} {self.name} = {self.first};")
            else:
                e.write(f"{self.type} *const {self.name} = {where} + {self.number} * {columns};")
        elif self.writer.inner is None:
            e.write(f"{self.type} {self.name} = {self.first};")
        else:
            e.write(f"{self.type} {self.name}[{columns}];")
        if self.kind == "argmax":
            e.write(f"{ARRAY_TYPES[self.dtype]} {self.other}{'' if self.writer.inner is None else f'[{columns}]'};")
        if self.checks_nan:
            e.write(f"int {self.other} = 0;")
        if self.writer.inner is not None:
            with self.writer.over_columns():
                e.write(f"{self.name}{self.at_column} = {self.first};")
                if self.kind == "argmax":
                    e.write(f"{self.other}{self.at_column} = 0;")
        elif self.kind == "argmax":
            e.write(f"{self.other} = 0;")

    @property
    def clause(self) -> str:
        """Of the pragma of the innermost loop."""
        if self.kind == "sum":
            return f" reduction(+:{self.other if self.in_parts else self.name})"
        nans = f" reduction(+:{self.other})" if self.checks_nan else ""
        return f" reduction(max:{self.name}){nans}"

    def begin_part(self) -> None:
        if not self.in_parts:
            return
        if self.writer.inner is None:
            self.e.write(f"float {self.other} = 0;")
            return
        self.e.write(f"float {self.other}[{self.writer.columns}];")
        with self.writer.over_columns():
            self.e.write(f"{self.other}{self.at_column} = 0;")

    def end_part(self) -> None:
        if self.in_parts and self.writer.inner is None:
            self.e.write(f"{self.name} += {self.other};")
        elif self.in_parts:
            with self.writer.over_columns():
                self.e.write(f"{self.name}{self.at_column} += {self.other}{self.at_column};")

    def add(self) -> None:
        """One element."""
        e, at = self.e, self.at_column
        values = [self.writer.at(operand) for operand in self.node.operands]
        if self.kind == "sum":
            e.write(f"{self.other if self.in_parts else self.name}{at} += {' * '.join(values)};")
        elif self.kind == "argmax":
            best, value = f"{self.name}{at}", values[0]
            with e.block(f"if ({value} > {best} || ({best} == {best} && {value} != {value}))"):
                e.write(f"{best} = {value};")
                e.write(f"{self.other}{at} = {self.place};")
        elif self.checks_nan:
            e.write(f"{self.name} = {values[0]} > {self.name} ? {values[0]} : {self.name};")
            e.write(f"{self.other} += {values[0]} != {values[0]};")
        else:
            e.write(f"{self.name}{at} = max_of({self.name}{at}, {values[0]});")

    @property
    def place(self) -> Coordinate:
        """The coordinate along the reduced axis."""
        return self.writer.reduced[0].name

    def publish(self) -> None:
        """Leaves the result of this thread in its workspace."""
        if self.checks_nan:
            self.e.write(f"if ({self.other}) {self.name} = {NANS[self.dtype]};")
        if self.writer.inner is None:
            self.e.write(f"{partial(self.node, 's->part')}[{self.number}] = {self.name};")

    def add_threads(self) -> None:
        """Combines the results of all threads."""
        e, columns = self.e, self.writer.columns
        pointer = partial(self.node, "p")
        e.write("for (int p = 1; p < s->parts; ++p)")
        with self.writer.over_columns(""):
            source = f"{pointer}[{self.number} * {columns} + c]" if self.writer.inner else f"{pointer}[{self.number}]"
            at = self.at_column
            if self.kind == "sum":
                e.write(f"{self.name}{at} += {source};")
            else:
                e.write(f"{self.name}{at} = max_of({self.name}{at}, {source});")

    def finish(self) -> None:
        """From here on, the result is known to other nodes."""
        e, type = self.e, ARRAY_TYPES[self.dtype]
        if self.checks_nan and not self.in_workspace:
            e.write(f"if ({self.other}) {self.name} = {NANS[self.dtype]};")
        found = self.other if self.kind == "argmax" else self.name
        if self.writer.inner is None:
            text = found if self.kind == "argmax" or self.type == type else f"({type}){found}"
            name = e.fresh(f"t{e.numbers.get(self.node.result, '')}")
            e.write(f"const {type} {name} = {text};")
            e.reduced[self.node.result] = name
        else:
            cast = "" if self.kind == "argmax" or self.type == type else f"({type})"
            e.reduced[self.node.result] = f"{cast}{found}{self.at_column}"
