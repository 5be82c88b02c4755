"""The first bad op of a step, found by walking back from bad results through what was recorded of every op.

From each result that is not finite (the loss, and variables that were finite before) the walk goes back through
operands that are not finite either, into the bodies of scans and regions, to ops whose operands are all finite. One of
these is to blame. An infinity that is discarded later (a mask, the padding of a maximum, the branch that `select` does
not choose) is never reached. If there are several candidates:

- From a NaN, the walk continues to operands with NaN, if there are any: -inf in a mask does not produce one.
- Of the operands of a `select`, only the elements that it chose count.
- An op that has an infinity in the model, as a number, is to blame only if there is no other.
- Of the remaining ops, the one that ran first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.op import LOOP
from compiler.ir.types import at_batch
from compiler.planning.memory import RegionPlan
from runtime.training.numerics import Range, Ranges


@dataclass(frozen=True)
class Seen:
    """One run of an op: the ranges of its operands and results, and its position in running order."""

    operands: Ranges
    results: Ranges
    time: int


@dataclass
class Trace:
    """What was recorded of a step: every run of each op, several in the body of a scan; nothing for views."""

    graph: Graph
    batch: int
    inputs: Mapping[str, Range]
    regions: Mapping[Node, RegionPlan] = field(default_factory=dict)  # that have their own plan
    seen: dict[Node, list[Seen]] = field(default_factory=dict)
    outputs: dict[str, Range] = field(default_factory=dict)  # the loss, and variables

    def add(self, node: Node, operands: Ranges, results: Ranges) -> None:
        runs = self.seen.setdefault(node, [])
        runs.append(Seen(operands, results, len(self.seen) if not runs else runs[0].time))

    def add_tile(self, node: Node, operands: Ranges, results: Ranges) -> None:
        """The same for one tile; the tiles of an op count as one run."""
        if node not in self.seen:
            self.add(node, operands, results)
            return
        (known,) = self.seen[node]
        pairs = (known.operands, operands), (known.results, results)
        inputs, outputs = (tuple(a.joined(b) for a, b in zip(*pair, strict=True)) for pair in pairs)
        self.seen[node] = [Seen(inputs, outputs, known.time)]

    @property
    def bad(self) -> list[str]:
        """The outputs that are not finite, without variables that were not finite before."""
        before = {name for name, range in self.inputs.items() if range.bad}
        return [name for name, range in self.outputs.items() if range.bad and name not in before]


@dataclass(frozen=True)
class GraphRun:
    """One run of a graph: of the step itself, or of the body of a node; `number` counts the runs of this graph."""

    graph: Graph
    number: int = 0
    outer: GraphRun | None = None
    node: Node | None = None
    step: int = 0  # of a scan, in running order


Place = tuple[GraphRun, Value]


@dataclass(frozen=True)
class Blame:
    """The origin. Without a node, the input `value` was bad before the step."""

    value: Value
    node: Node | None
    seen: Seen | None
    step: int | None  # of the scan that contains the op
    path: Sequence[tuple[Node, Seen]]  # the ops from there to the outputs, with what was recorded of each
    reached: Sequence[str]  # names of bad outputs

    @property
    def first_nan(self) -> tuple[Node, Seen] | None:
        """The op in which an infinity became a NaN, if that was a later one."""
        if self.seen is None or any(range.nans for range in self.seen.results):
            return None
        return next(((node, seen) for node, seen in self.path if any(range.nans for range in seen.results)), None)


def find(trace: Trace) -> Blame | None:
    """The op or input to blame; None if all outputs are finite."""
    top = GraphRun(trace.graph)
    starts = [(top, trace.graph.outputs[name]) for name in trace.bad]
    if not starts:
        return None
    walk = Walk(trace)
    origins = walk.back_from(starts)
    graph_run, value = min(origins, key=walk.rank)
    seen = walk.seen_of(graph_run, value)
    step = graph_run.step if graph_run.node and LOOP in graph_run.node.op.traits else None
    return Blame(value, value.node if seen else None, seen, step, walk.path_from((graph_run, value)), trace.bad)


class Walk:
    """A walk back through a trace."""

    def __init__(self, trace: Trace):
        self.trace = trace
        self.next: dict[Place, Place | None] = {}  # every visited place -> the one it was reached from

    def back_from(self, starts: Sequence[Place]) -> list[Place]:
        """All places where bad values originate: results of ops, or inputs."""
        self.next = dict.fromkeys(starts)
        pending, origins = list(starts), []
        while pending:
            place = pending.pop()
            sources = self.sources(*place)
            origins += [place] if not sources else []
            for source in sources:
                if source not in self.next:
                    self.next[source] = place
                    pending.append(source)
        return origins

    def sources(self, graph_run: GraphRun, value: Value) -> list[Place]:
        """The bad values that a bad value comes from; none if it originates here."""
        node = value.node
        if node is None:
            return self.outside(graph_run, value)
        if "body" in node.attributes:
            return self.inside(graph_run, node, node.results.index(value))
        seen = self.seen_of(graph_run, value)
        if seen is None:  # a view
            return [(graph_run, node.operands[0])]
        pairs = [pair for pair in zip(node.operands, seen.operands, strict=True) if not isinstance(pair[0], Literal)]
        if seen.results[node.results.index(value)].nans and any(range.nans for _, range in pairs):
            return [(graph_run, operand) for operand, range in pairs if range.nans]
        return [(graph_run, operand) for operand, range in pairs if range.bad]

    def outside(self, graph_run: GraphRun, value: Value) -> list[Place]:
        """The value of an input of a body: an operand of its node, or a carry of the previous step."""
        if graph_run.node is None or graph_run.outer is None:
            return []
        index = graph_run.graph.inputs.index(value)
        if graph_run.node in self.trace.regions:
            index = self.trace.regions[graph_run.node].operands[index]
        elif LOOP in graph_run.node.op.traits and index < graph_run.node.attributes["carries"] and graph_run.step:
            before = replace(graph_run, number=graph_run.number - 1, step=graph_run.step - 1)
            return [(before, list(graph_run.graph.outputs.values())[index])]
        return [(graph_run.outer, graph_run.node.operands[index])]

    def inside(self, graph_run: GraphRun, node: Node, index: int) -> list[Place]:
        """A result of a region or a scan, in its body; for a scan, in the first step in which it is bad."""
        if LOOP not in node.op.traits:
            graph = self.trace.regions[node].plan.graph if node in self.trace.regions else node.body
            return [(GraphRun(graph, graph_run.number, graph_run, node), list(graph.outputs.values())[index])]
        value, carries = list(node.body.outputs.values())[index], node.attributes["carries"]
        (length,) = at_batch(node.operands[carries].type.shape[:1], self.trace.batch)
        for step in range(length):
            inner = GraphRun(node.body, graph_run.number * length + step, graph_run, node, step)
            if self.is_bad(inner, value):
                return [(inner, value)]
        return [(graph_run, node.operands[index])] if index < carries else []

    def is_bad(self, graph_run: GraphRun, value: Value) -> bool:
        """Whether a value in a body is not finite."""
        seen = self.seen_of(graph_run, value)
        if seen is not None and value.node:
            return seen.results[value.node.results.index(value)].bad
        if value.node and "body" not in value.node.attributes:
            return self.is_bad(graph_run, value.node.operands[0])
        if value.node is None and graph_run.node is None:
            return value.name in self.trace.inputs and self.trace.inputs[value.name].bad
        around = self.inside(graph_run, value.node, value.node.results.index(value)) if value.node else None
        return any(self.is_bad(*place) for place in (self.outside(graph_run, value) if around is None else around))

    def seen_of(self, graph_run: GraphRun, value: Value) -> Seen | None:
        runs = self.trace.seen.get(value.node, []) if value.node else []
        return runs[graph_run.number] if graph_run.number < len(runs) else None

    def rank(self, place: Place) -> tuple[bool, int, int, int]:
        """The place with the smallest rank is to blame."""
        graph_run, value = place
        seen = self.seen_of(graph_run, value)
        if seen is None or value.node is None:
            known = self.trace.inputs.get(value.name)
            return known is not None and not known.nans, -1, 0, 0
        given = is_given_infinity(value.node) and not any(range.nans for range in seen.results)
        return given, outermost(self.trace, graph_run, seen.time), graph_run.number, seen.time

    def path_from(self, place: Place) -> list[tuple[Node, Seen]]:
        path, at = [], self.next.get(place)
        while at is not None:
            seen = self.seen_of(*at)
            if seen is not None and at[1].node is not None:
                path.append((at[1].node, seen))
            at = self.next[at]
        return path


def outermost(trace: Trace, graph_run: GraphRun, time: int) -> int:
    """When the outermost node around a place started: ops of one scan are ordered by step."""
    while graph_run.node is not None and graph_run.outer is not None:
        runs = [trace.seen[node][0].time for node in graph_run.graph.walk() if node in trace.seen]
        time, graph_run = min(runs, default=time), graph_run.outer
    return time


def is_given_infinity(node: Node) -> bool:
    """Whether the model itself passes an infinity to an op: as a number, or as the value of padding."""
    numbers = [operand.value for operand in node.operands if isinstance(operand, Literal)]
    numbers += [value for value in node.attributes.values() if isinstance(value, float)]
    return any(isinstance(number, float) and not math.isfinite(number) for number in numbers)
