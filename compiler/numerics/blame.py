"""The first bad op of a step, from what was seen of every op: the way back from what is bad at the end.

From each result that is not finite (the loss, and variables that were finite before) the way leads back through
operands that are not finite either, into the bodies of scans and regions, to ops whose operands are all finite: one of
these is to blame. So an infinity that something later throws away (a mask, the padding of a maximum, the side that a
`select` does not take) is never come across. Where ways fork:

- Of a NaN the way goes on to operands with NaN, if there are any: -inf in a mask does not make one.
- Of a `select` only the elements that it took count.
- An op that was given an infinity by the model, as a number, is to blame only if there is no other.
- Of several that are left, the one that ran first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.types import at_batch
from compiler.planning.memory import RegionPlan
from runtime.training.numerics import Range, Ranges


@dataclass(frozen=True)
class Seen:
    """One run of an op: the ranges of its operands and results, and its place in the order in which ops ran."""

    operands: Ranges
    results: Ranges
    time: int


@dataclass
class Trace:
    """What was seen of a step: of each op every run, several in the body of a scan; nothing of ops that are views."""

    graph: Graph
    batch: int
    inputs: Mapping[str, Range]
    regions: Mapping[Node, RegionPlan] = field(default_factory=dict)  # that have a plan of their own
    seen: dict[Node, list[Seen]] = field(default_factory=dict)
    outputs: dict[str, Range] = field(default_factory=dict)  # the loss, and variables

    def add(self, node: Node, operands: Ranges, results: Ranges) -> None:
        runs = self.seen.setdefault(node, [])
        runs.append(Seen(operands, results, len(self.seen) if not runs else runs[0].time))

    def add_tile(self, node: Node, operands: Ranges, results: Ranges) -> None:
        """The same for one tile of several, which count as one run."""
        if node not in self.seen:
            self.add(node, operands, results)
            return
        (known,) = self.seen[node]
        pairs = (known.operands, operands), (known.results, results)
        inputs, outputs = (tuple(a.joined(b) for a, b in zip(*pair, strict=True)) for pair in pairs)
        self.seen[node] = [Seen(inputs, outputs, known.time)]

    @property
    def bad(self) -> list[str]:
        """The outputs that are not finite, less variables that were not finite before."""
        before = {name for name, range in self.inputs.items() if range.bad}
        return [name for name, range in self.outputs.items() if range.bad and name not in before]


@dataclass(frozen=True)
class Frame:
    """A graph while it is walked through: its own, or the body of a node of another; `run` counts the runs of it."""

    graph: Graph
    run: int = 0
    outer: Frame | None = None
    node: Node | None = None
    step: int = 0  # of a scan, in the order in which they ran


Place = tuple[Frame, Value]


@dataclass(frozen=True)
class Blame:
    """Where it began. Without a node it was there before the step: in the input `value`."""

    value: Value
    node: Node | None
    seen: Seen | None
    step: int | None  # of the scan that the op is in
    way: Sequence[tuple[Node, Seen]]  # from there to the outputs, each op with what was seen of it
    reached: Sequence[str]  # outputs

    @property
    def first_nan(self) -> tuple[Node, Seen] | None:
        """Where an infinity became a NaN, if that was later."""
        if self.seen is None or any(range.nans for range in self.seen.results):
            return None
        return next(((node, seen) for node, seen in self.way if any(range.nans for range in seen.results)), None)


def find(trace: Trace) -> Blame | None:
    """Who is to blame; None if all outputs are finite."""
    top = Frame(trace.graph)
    starts = [(top, trace.graph.outputs[name]) for name in trace.bad]
    if not starts:
        return None
    walk = Walk(trace)
    roots = walk.back_from(starts)
    frame, value = min(roots, key=walk.rank)
    seen = walk.seen_of(frame, value)
    step = frame.step if frame.node and frame.node.op.name == "scan" else None
    return Blame(value, value.node if seen else None, seen, step, walk.way_from((frame, value)), trace.bad)


class Walk:
    """The way back through a trace."""

    def __init__(self, trace: Trace):
        self.trace = trace
        self.next: dict[Place, Place | None] = {}  # every place come across -> the one that it was reached from

    def back_from(self, starts: Sequence[Place]) -> list[Place]:
        """All places at which something bad began: results of ops, or inputs."""
        self.next = dict.fromkeys(starts)
        todo, roots = list(starts), []
        while todo:
            place = todo.pop()
            sources = self.sources(*place)
            roots += [place] if not sources else []
            for source in sources:
                if source not in self.next:
                    self.next[source] = place
                    todo.append(source)
        return roots

    def sources(self, frame: Frame, value: Value) -> list[Place]:
        """Where a bad value has it from; nothing if it began there."""
        node = value.node
        if node is None:
            return self.outside(frame, value)
        if "body" in node.attributes:
            return self.inside(frame, node, node.results.index(value))
        seen = self.seen_of(frame, value)
        if seen is None:  # a view
            return [(frame, node.operands[0])]
        pairs = [pair for pair in zip(node.operands, seen.operands, strict=True) if not isinstance(pair[0], Literal)]
        if seen.results[node.results.index(value)].nans and any(range.nans for _, range in pairs):
            return [(frame, operand) for operand, range in pairs if range.nans]
        return [(frame, operand) for operand, range in pairs if range.bad]

    def outside(self, frame: Frame, value: Value) -> list[Place]:
        """What an input of a body stands for: an operand of its node, or what the step before carried over."""
        if frame.node is None or frame.outer is None:
            return []
        index = frame.graph.inputs.index(value)
        if frame.node in self.trace.regions:
            index = self.trace.regions[frame.node].operands[index]
        elif frame.node.op.name == "scan" and index < frame.node.attributes["carries"] and frame.step:
            before = Frame(frame.graph, frame.run - 1, frame.outer, frame.node, frame.step - 1)
            return [(before, list(frame.graph.outputs.values())[index])]
        return [(frame.outer, frame.node.operands[index])]

    def inside(self, frame: Frame, node: Node, index: int) -> list[Place]:
        """A result of a region or a scan, in its body; of a scan at the first step at which it is bad."""
        if node.op.name != "scan":
            graph = self.trace.regions[node].plan.graph if node in self.trace.regions else node.body
            return [(Frame(graph, frame.run, frame, node), list(graph.outputs.values())[index])]
        value, carries = list(node.body.outputs.values())[index], node.attributes["carries"]
        (length,) = at_batch(node.operands[carries].type.shape[:1], self.trace.batch)
        for step in range(length):
            inner = Frame(node.body, frame.run * length + step, frame, node, step)
            if self.is_bad(inner, value):
                return [(inner, value)]
        return [(frame, node.operands[index])] if index < carries else []

    def is_bad(self, frame: Frame, value: Value) -> bool:
        """Whether a value in a body is not finite."""
        seen = self.seen_of(frame, value)
        if seen is not None and value.node:
            return seen.results[value.node.results.index(value)].bad
        if value.node and "body" not in value.node.attributes:
            return self.is_bad(frame, value.node.operands[0])
        if value.node is None and frame.node is None:
            return value.name in self.trace.inputs and self.trace.inputs[value.name].bad
        around = self.inside(frame, value.node, value.node.results.index(value)) if value.node else None
        return any(self.is_bad(*place) for place in (self.outside(frame, value) if around is None else around))

    def seen_of(self, frame: Frame, value: Value) -> Seen | None:
        runs = self.trace.seen.get(value.node, []) if value.node else []
        return runs[frame.run] if frame.run < len(runs) else None

    def rank(self, place: Place) -> tuple[bool, int, int, int]:
        """The smallest is to blame."""
        frame, value = place
        seen = self.seen_of(frame, value)
        if seen is None or value.node is None:
            known = self.trace.inputs.get(value.name)
            return known is not None and not known.nans, -1, 0, 0
        given = is_given_infinity(value.node) and not any(range.nans for range in seen.results)
        return given, outermost(self.trace, frame, seen.time), frame.run, seen.time

    def way_from(self, place: Place) -> list[tuple[Node, Seen]]:
        way, at = [], self.next.get(place)
        while at is not None:
            seen = self.seen_of(*at)
            if seen is not None and at[1].node is not None:
                way.append((at[1].node, seen))
            at = self.next[at]
        return way


def outermost(trace: Trace, frame: Frame, time: int) -> int:
    """When what holds a place began: ops of one scan count by their steps."""
    while frame.node is not None and frame.outer is not None:
        runs = [trace.seen[node][0].time for node in frame.graph.walk() if node in trace.seen]
        time, frame = min(runs, default=time), frame.outer
    return time


def is_given_infinity(node: Node) -> bool:
    """Whether the model itself gives an op an infinity: as a number, or as the value of padding."""
    numbers = [operand.value for operand in node.operands if isinstance(operand, Literal)]
    numbers += [value for value in node.attributes.values() if isinstance(value, float)]
    return any(isinstance(number, float) and not math.isfinite(number) for number in numbers)
