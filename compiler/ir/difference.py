"""What changed between two versions of a graph, as text that renumbering does not clutter.

Values of the two graphs are matched first: forward from the inputs, those computed in the same way from matched
values; backward from the outputs, those with the same role; and the rest by their order. Matched values keep the number
they had before, so lines differ only where the computation does. New values are shown with their new number, as %+7.
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
ValueNames = dict[Value, str]


class GraphLine(NamedTuple):
    """A line of text and the graph or body it belongs to (as it was before, if matched): bodies have equal lines."""

    text: str
    graph: Listing
    origin: str = ""


@dataclass(frozen=True, eq=False)
class NodeRow:
    """A node, as it was when the listing was taken."""

    op: str
    operands: Sequence[Value]
    attributes: str
    results: Sequence[Value]
    origin: str
    body: Listing | None
    body_text: str

    def signature(self, known: Mapping[Value, Value]) -> object:
        """Equal for rows that compute the same; `known` maps values to their partners."""
        operands = tuple(literal_key(known.get(operand, operand)) for operand in self.operands)
        return self.op, operands, self.attributes, self.body_text

    def likeness(self, known: Mapping[Value, Value]) -> object:
        """Equal for rows that may have the same role: unknown operands may be anything."""
        if self.body:
            return self.op, self.origin
        operands = tuple(literal_key(v) if isinstance(v, Literal) else known.get(v) for v in self.operands)
        return self.op, operands, self.attributes, tuple(value.type for value in self.results)


@dataclass(frozen=True, eq=False)
class Listing:
    """A graph, as it was when the listing was taken."""

    name: str
    inputs: Sequence[Value]
    rows: Sequence[NodeRow]
    outputs: dict[str, Value]

    @classmethod
    def of(cls, graph: Graph) -> Listing:
        rows = []
        for node in graph.nodes:
            body = node.attributes.get("body")
            plain = [f"{key}={show_attribute(value, 0)}" for key, value in node.attributes.items() if key != "body"]
            origin = f"  // {node.origin}" if node.origin else ""
            inner, text = (Listing.of(body), print_graph(body)) if body else (None, "")
            rows.append(NodeRow(node.op.name, [*node.operands], ", ".join(plain), [*node.results], origin, inner, text))
        return cls(graph.name, [*graph.inputs], rows, dict(graph.outputs))

    def numbers(self) -> ValueNames:
        """The printed name of every value, without those in bodies."""
        results = (value for row in self.rows for value in row.results)
        return {value: value.name for value in self.inputs} | {value: str(i) for i, value in enumerate(results)}


def difference(before: Listing | None, graph: Graph) -> str:
    """The changed lines of a graph with some context: `-` before, `+` now, `>` moved here."""
    now = Listing.of(graph)
    matching = Matching()
    old: ValueNames = {}
    if before is not None:
        old = names_before(before)
        matching.bodies[now] = before
        matching.match(before, now)
    lines_before = list(show(before, old, {})) if before else []
    lines_now = list(show(now, matching.names(now, old, new=before is None), matching.bodies))
    marked = list(mark_lines(lines_before, lines_now))
    counts = Counter(mark for mark, _ in marked)
    summary = ", ".join(f"{counts[mark]} {word}" for mark, word in MARKS.items() if counts[mark])
    return "\n".join([f"graph {graph.name}: {summary or 'unchanged'}", *hunks(marked)])


def names_before(listing: Listing) -> ValueNames:
    names = listing.numbers()
    for row in listing.rows:
        names |= names_before(row.body) if row.body else {}
    return names


# Matching -------------------------------------------------------------------------------------------------------------


class Matching:
    """Pairs each value of the current graph with at most one value of the previous graph."""

    def __init__(self) -> None:
        self.partner: dict[Value, Value] = {}  # now -> before
        self.used: set[Value] = set()  # values of the previous graph that have a partner
        self.bodies: dict[Listing, Listing] = {}  # now -> before

    def pair(self, now: Value, before: Value) -> bool:
        """Records a pair if the two can be partners; returns whether they can."""
        literal = isinstance(now, Literal) or isinstance(before, Literal)
        if literal or now in self.partner or before in self.used or now.type != before.type:
            return False
        self.partner[now] = before
        self.used.add(before)
        return True

    def match(self, before: Listing, now: Listing, outputs: Sequence[tuple[Value, Value]] | None = None) -> None:
        """Matches as much as possible; `outputs` are pairs with the same role, by default those of one name."""
        known = {value.name: value for value in before.inputs}
        for value in now.inputs:
            if value.name in known:
                self.pair(value, known[value.name])
        if outputs is None:
            outputs = [(value, before.outputs[name]) for name, value in now.outputs.items() if name in before.outputs]
        rows_before = {value: row for row in before.rows for value in row.results}
        rows_now = {value: row for row in now.rows for value in row.results}
        for value in rows_now.keys() & rows_before.keys():  # unchanged nodes are shared
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
        """Forward from the inputs: the same op and attributes, and operands that are matched or equal to such."""
        first: dict[Value, Value] = {}  # of several values that are computed in the same way
        rows: defaultdict[object, list[NodeRow]] = defaultdict(list)
        for row in before.rows:
            equal = rows[row.signature(first)]
            equal.append(row)
            first |= zip(row.results, equal[0].results, strict=True)
        known = {value: first.get(old, old) for value, old in self.partner.items()}
        for row in now.rows:
            equal = rows.get(row.signature(known), [])
            free = next((other for other in equal if self.used.isdisjoint(other.results)), None)
            if free and not any(value in self.partner for value in row.results):
                for value, old in zip(row.results, free.results, strict=True):
                    self.pair(value, old)
                    known[value] = first[old]

    def match_parts(
        self,
        rows_before: Mapping[Value, NodeRow],
        rows_now: Mapping[Value, NodeRow],
        outputs: Sequence[tuple[Value, Value]],
    ) -> None:
        """Backward from outputs and matched values: operands of the same op at the same position."""
        pending = [(value, self.partner[value]) for value in rows_now if value in self.partner]
        pending += [(now, before) for now, before in outputs if self.pair(now, before)]
        while pending:
            now, before = pending.pop()
            row, other = rows_now.get(now), rows_before.get(before)
            if row and other and row.op == other.op and len(row.operands) == len(other.operands):
                pairs = zip(row.operands, other.operands, strict=True)
                pending += [(mine, yours) for mine, yours in pairs if self.pair(mine, yours)]

    def match_order(self, before: Listing, now: Listing) -> None:
        """Similar nodes that come in the same order."""
        matched = {*self.partner, *self.used, *self.bodies, *self.bodies.values()}
        theirs, mine = (
            [row for row in listing.rows if matched.isdisjoint([row.body] if row.body else row.results)]
            for listing in (before, now)
        )
        keys = [row.likeness({value: value for value in self.used}) for row in theirs]
        matcher = SequenceMatcher(None, keys, [row.likeness(self.partner) for row in mine], autojunk=False)
        for i, j, size in matcher.get_matching_blocks():
            for other, row in zip(theirs[i : i + size], mine[j : j + size], strict=True):
                self.match_bodies(other, row)
                for value, old in zip(row.results, other.results, strict=False) if not row.body else ():
                    self.pair(value, old)

    def match_bodies(self, before: NodeRow, now: NodeRow) -> None:
        """Inputs by their operands, outputs by the results, and then results by the outputs."""
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

    def names(self, listing: Listing, old: ValueNames, new: bool = False) -> ValueNames:
        """Names of the current values: the previous one, or one with a plus; plain numbers in bodies of `new` nodes."""
        mark = "" if new else "+"
        names = {value: mark + name for value, name in listing.numbers().items()}
        names |= {value: old[self.partner[value]] for value in names if value in self.partner}
        for row in listing.rows:
            names |= self.names(row.body, old, row.body not in self.bodies) if row.body else {}
        return names


# Showing --------------------------------------------------------------------------------------------------------------


def show(
    listing: Listing, names: ValueNames, bodies: Mapping[Listing, Listing], pad: str = "", prefix: str = ""
) -> Iterator[GraphLine]:
    """The lines of a graph, or of a body whose node begins with `prefix`, without the closing line."""
    graph = bodies.get(listing, listing)
    inputs = ", ".join(f"%{names[value]}: {value.type} {value.kind}".rstrip() for value in listing.inputs)
    yield GraphLine(f"{pad}{prefix}graph {listing.name}({inputs}) {{", graph)
    for row in listing.rows:
        results = ", ".join(f"%{names[value]}: {value.type}" for value in row.results)
        arguments = [show_operand(operand, names) for operand in row.operands]
        arguments += [row.attributes] if row.attributes else []
        inside = pad + INDENT
        if row.body:
            yield from show(row.body, names, bodies, inside, f"{results} = {row.op}({', '.join([*arguments, 'body='])}")
            yield GraphLine(f"{inside}}})", graph, row.origin)
        else:
            yield GraphLine(f"{inside}{results} = {row.op}({', '.join(arguments)})", graph, row.origin)
    outputs = ", ".join(f"{name}={show_operand(value, names)}" for name, value in listing.outputs.items())
    yield GraphLine(f"{pad}{INDENT}return {outputs}".rstrip(), graph)


def mark_lines(before: list[GraphLine], now: list[GraphLine]) -> Iterator[tuple[str, GraphLine]]:
    """The current lines marked ` `, `+` or `>`, and between them the removed lines, marked `-`."""
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


def hunks(marked: Sequence[tuple[str, GraphLine]]) -> Iterator[str]:
    """The changed lines with context; after a gap comes the current number of the next line."""
    near = {i + offset for i, (mark, _) in enumerate(marked) if mark != " " for offset in range(-CONTEXT, CONTEXT + 1)}
    line_number, shown = 1, False
    for i, (mark, line) in enumerate(marked):
        if i in near and not shown:
            yield f"@@ line {line_number} @@"
        shown = i in near
        if shown:
            yield f"{mark} {line.text}{line.origin}"
        line_number += mark != "-"
