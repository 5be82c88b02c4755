"""What changed from one graph to the next, as text in which renumbering does not drown the change.

Values of both graphs are matched first: those computed in the same way from matched values, from the inputs on; those
that play the same part, from the outputs back; and what lies between by its order. What is matched keeps the number it
had before, so that lines differ only where the computation does. New values are written with the number they have now,
as %+7.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from compiler.ir.graph import Graph, Literal, Value, literal_key
from compiler.ir.printer import INDENT, print_graph, show_attribute, show_operand

CONTEXT = 3  # unchanged lines around a change
MARKS = {"-": "removed", "+": "added", ">": "moved"}
Names = dict[Value, str]


class Line(NamedTuple):
    """A line of a graph or body, which is told by what it was before: bodies have lines in common."""

    text: str
    graph: Listing
    origin: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """A node, as it was when the listing was made."""

    op: str
    operands: Sequence[Value]
    attributes: str
    results: Sequence[Value]
    origin: str
    body: Listing | None
    body_text: str

    def signature(self, known: Mapping[Value, Value]) -> object:
        """Equal for rows that compute the same, where `known` leads from a value to the one it stands for."""
        operands = tuple(literal_key(known.get(operand, operand)) for operand in self.operands)
        return self.op, operands, self.attributes, self.body_text

    def likeness(self, known: Mapping[Value, Value]) -> object:
        """Equal for rows that may play the same part: operands that are not known may be anything."""
        if self.body:
            return self.op, self.origin
        operands = tuple(literal_key(v) if isinstance(v, Literal) else known.get(v) for v in self.operands)
        return self.op, operands, self.attributes, tuple(value.type for value in self.results)


@dataclass(frozen=True, eq=False)
class Listing:
    """A graph, as it was when the listing was made."""

    name: str
    inputs: Sequence[Value]
    rows: Sequence[Row]
    outputs: dict[str, Value]

    @classmethod
    def of(cls, graph: Graph) -> Listing:
        rows = []
        for node in graph.nodes:
            body = node.attributes.get("body")
            plain = [f"{key}={show_attribute(value, 0)}" for key, value in node.attributes.items() if key != "body"]
            origin = f"  // {node.origin}" if node.origin else ""
            inner, text = (Listing.of(body), print_graph(body)) if body else (None, "")
            rows.append(Row(node.op.name, [*node.operands], ", ".join(plain), [*node.results], origin, inner, text))
        return cls(graph.name, [*graph.inputs], rows, dict(graph.outputs))

    def numbers(self) -> Names:
        """The printed name of every value, without those in bodies."""
        results = (value for row in self.rows for value in row.results)
        return {value: value.name for value in self.inputs} | {value: str(i) for i, value in enumerate(results)}


def difference(before: Listing | None, graph: Graph) -> str:
    """The changed lines of a graph with some around them: `-` as it was, `+` as it is, `>` moved here."""
    now = Listing.of(graph)
    matching = Matching()
    old: Names = {}
    if before is not None:
        old = names_before(before)
        matching.bodies[now] = before
        matching.match(before, now)
    lines_before = list(show(before, old, {})) if before else []
    lines_now = list(show(now, matching.names(now, old, new=before is None), matching.bodies))
    marked = list(mark_lines(lines_before, lines_now))
    counts = Counter(mark for mark, _ in marked)
    told = ", ".join(f"{counts[mark]} {word}" for mark, word in MARKS.items() if counts[mark])
    return "\n".join([f"graph {graph.name}: {told or 'unchanged'}", *hunks(marked)])


def names_before(listing: Listing) -> Names:
    names = listing.numbers()
    for row in listing.rows:
        names |= names_before(row.body) if row.body else {}
    return names


# Matching -------------------------------------------------------------------------------------------------------------


class Matching:
    """Which value of the graph as it is stands for which of the graph as it was: one for one."""

    def __init__(self) -> None:
        self.partner: dict[Value, Value] = {}  # now -> before, and so are bodies
        self.taken: set[Value] = set()  # before
        self.bodies: dict[Listing, Listing] = {}

    def pair(self, now: Value, before: Value) -> bool:
        """Whether the two may stand for each other, which is noted."""
        literal = isinstance(now, Literal) or isinstance(before, Literal)
        if literal or now in self.partner or before in self.taken or now.type != before.type:
            return False
        self.partner[now] = before
        self.taken.add(before)
        return True

    def match(self, before: Listing, now: Listing, outputs: Sequence[tuple[Value, Value]] | None = None) -> None:
        """Matches all that can be; `outputs` are pairs that play the same part, by default those of one name."""
        known = {value.name: value for value in before.inputs}
        for value in now.inputs:
            if value.name in known:
                self.pair(value, known[value.name])
        if outputs is None:
            outputs = [(value, before.outputs[name]) for name, value in now.outputs.items() if name in before.outputs]
        rows_before = {value: row for row in before.rows for value in row.results}
        rows_now = {value: row for row in now.rows for value in row.results}
        for value in rows_now.keys() & rows_before.keys():  # nodes that stay as they are may belong to both
            self.pair(value, value)
        count = -1
        while count < len(self.partner):
            count = len(self.partner)
            self.match_equal(before, now)
            self.match_parts(rows_before, rows_now, outputs)
            for value, row in rows_now.items():
                other = rows_before.get(self.partner[value]) if value in self.partner else None
                if other:
                    self.match_bodies(other, row)
            if count == len(self.partner):
                self.match_order(before, now)

    def match_equal(self, before: Listing, now: Listing) -> None:
        """From the inputs on: the same op, the same attributes, and operands that are matched, or equal to such."""
        first: dict[Value, Value] = {}  # of several values that are computed in the same way
        rows: defaultdict[object, list[Row]] = defaultdict(list)
        for row in before.rows:
            equal = rows[row.signature(first)]
            equal.append(row)
            first |= zip(row.results, equal[0].results, strict=True)
        known = {value: first.get(old, old) for value, old in self.partner.items()}
        for row in now.rows:
            equal = rows.get(row.signature(known), [])
            free = next((other for other in equal if self.taken.isdisjoint(other.results)), None)
            if free and not any(value in self.partner for value in row.results):
                for value, old in zip(row.results, free.results, strict=True):
                    self.pair(value, old)
                    known[value] = first[old]

    def match_parts(
        self, rows_before: Mapping[Value, Row], rows_now: Mapping[Value, Row], outputs: Sequence[tuple[Value, Value]]
    ) -> None:
        """From the outputs and from what is matched back: operands of the same op at the same place."""
        pending = [(value, self.partner[value]) for value in rows_now if value in self.partner]
        pending += [(now, before) for now, before in outputs if self.pair(now, before)]
        while pending:
            now, before = pending.pop()
            row, other = rows_now.get(now), rows_before.get(before)
            if row and other and row.op == other.op and len(row.operands) == len(other.operands):
                pairs = zip(row.operands, other.operands, strict=True)
                pending += [(mine, yours) for mine, yours in pairs if self.pair(mine, yours)]

    def match_order(self, before: Listing, now: Listing) -> None:
        """Nodes that are alike and come in the same order."""
        matched = {*self.partner, *self.taken, *self.bodies, *self.bodies.values()}
        theirs, mine = (
            [row for row in listing.rows if matched.isdisjoint([row.body] if row.body else row.results)]
            for listing in (before, now)
        )
        keys = [row.likeness({value: value for value in self.taken}) for row in theirs]
        matcher = SequenceMatcher(None, keys, [row.likeness(self.partner) for row in mine], autojunk=False)
        for i, j, size in matcher.get_matching_blocks():
            for other, row in zip(theirs[i : i + size], mine[j : j + size], strict=True):
                self.match_bodies(other, row)
                for value, old in zip(row.results, other.results, strict=False) if not row.body else ():
                    self.pair(value, old)

    def match_bodies(self, before: Row, now: Row) -> None:
        """Inputs by the operands they stand for, outputs by the results, and then results by the outputs."""
        if not before.body or not now.body or now.body in self.bodies:
            return
        self.bodies[now.body] = before.body
        for operand, value in zip(now.operands, now.body.inputs, strict=True):
            for old, theirs in zip(before.operands, before.body.inputs, strict=True):
                if self.partner.get(operand) is old and self.pair(value, theirs):
                    break
        outputs = dict(zip(before.results, before.body.outputs.values(), strict=True))
        results = list(zip(now.results, now.body.outputs.values(), strict=True))
        self.match(before.body, now.body, [(v, outputs[self.partner[r]]) for r, v in results if r in self.partner])
        for result, value in results:
            for old, theirs in outputs.items():
                if self.partner.get(value) is theirs:
                    self.pair(result, old)

    def names(self, listing: Listing, old: Names, new: bool = False) -> Names:
        """The names of values as they are: as they were, or with a plus; in the bodies of `new` nodes plain numbers."""
        mark = "" if new else "+"
        names = {value: mark + name for value, name in listing.numbers().items()}
        names |= {value: old[self.partner[value]] for value in names if value in self.partner}
        for row in listing.rows:
            names |= self.names(row.body, old, row.body not in self.bodies) if row.body else {}
        return names


# Showing --------------------------------------------------------------------------------------------------------------


def show(
    listing: Listing, names: Names, bodies: Mapping[Listing, Listing], pad: str = "", prefix: str = ""
) -> Iterator[Line]:
    """The lines of a graph, or of a body whose node begins with `prefix`, but for the closing one."""
    graph = bodies.get(listing, listing)
    inputs = ", ".join(f"%{names[value]}: {value.type} {value.kind}".rstrip() for value in listing.inputs)
    yield Line(f"{pad}{prefix}graph {listing.name}({inputs}) {{", graph)
    for row in listing.rows:
        results = ", ".join(f"%{names[value]}: {value.type}" for value in row.results)
        arguments = [show_operand(operand, names) for operand in row.operands]
        arguments += [row.attributes] if row.attributes else []
        inside = pad + INDENT
        if row.body:
            yield from show(row.body, names, bodies, inside, f"{results} = {row.op}({', '.join([*arguments, 'body='])}")
            yield Line(f"{inside}}})", graph, row.origin)
        else:
            yield Line(f"{inside}{results} = {row.op}({', '.join(arguments)})", graph, row.origin)
    outputs = ", ".join(f"{name}={show_operand(value, names)}" for name, value in listing.outputs.items())
    yield Line(f"{pad}{INDENT}return {outputs}".rstrip(), graph)


def mark_lines(before: list[Line], now: list[Line]) -> Iterator[tuple[str, Line]]:
    """The lines as they are with ` `, `+` or `>` in front of each, and between them those that are gone, with `-`."""
    matcher = SequenceMatcher(None, [line[:2] for line in before], [line[:2] for line in now], autojunk=False)
    changes = [(before[i:j], now[k:m], tag == "equal") for tag, i, j, k, m in matcher.get_opcodes()]
    removed = Counter(line[:2] for old, _, equal in changes if not equal for line in old)
    added = Counter(line[:2] for _, new, equal in changes if not equal for line in new)
    leaving = removed & added
    arriving = leaving.copy()
    for old, new, equal in changes:
        for line in () if equal else old:
            leaving[line[:2]] -= 1
            if leaving[line[:2]] < 0:
                yield "-", line
        for line in new:
            arriving[line[:2]] -= not equal
            yield " " if equal else ">" if arriving[line[:2]] >= 0 else "+", line


def hunks(marked: Sequence[tuple[str, Line]]) -> Iterator[str]:
    """The changed lines with some around them; a gap is headed by the number of the line that follows, as it is now."""
    near = {i + offset for i, (mark, _) in enumerate(marked) if mark != " " for offset in range(-CONTEXT, CONTEXT + 1)}
    line_number, shown = 1, False
    for i, (mark, line) in enumerate(marked):
        if i in near and not shown:
            yield f"@@ line {line_number} @@"
        shown = i in near
        if shown:
            yield f"{mark} {line.text}{line.origin}"
        line_number += mark != "-"
