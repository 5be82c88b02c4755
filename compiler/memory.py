"""Where every tensor of a graph lives: lifetimes to offsets in one arena. A pure function of the graph and the batch.

A tensor is either a block of its own or shares the bytes of another: views, per-step outputs of a scan inside their
stack, and new values written over the variable or carry that they replace. Time counts nodes in the order they run; the
body of a scan runs inside its node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.types import TensorType
from compiler.layout import Order, Strides, batch_last, order_of, preferred_order, strides_in_order, view_strides
from compiler.ops.op import ELEMENTWISE, VIEW
from compiler.packing import Block, assign_offsets, peak_of_live
from compiler.schedule import groups

VARIABLES = ("param", "state", "slot", "counter")


@dataclass(eq=False)
class Plan:
    """Placement of one graph's tensors: `owner` leads from a value to the value whose block holds it."""

    graph: Graph
    blocks: dict[Value, Block]
    owner: dict[Value, Value]
    views: set[Node]
    orders: dict[Value, Order]  # of the axes of each block, outermost first
    scratch: dict[Node, Value] = field(default_factory=dict)
    base: int = 0  # where the variables end
    size: int = 0  # of the arena, variables included
    naive: int = 0  # bytes of all blocks one after the other, variables apart
    slots: dict[Value, Value] = field(default_factory=dict)  # body value -> the stacked result it is a step of

    def block(self, value: Value) -> Block:
        return self.blocks[self.owner[value]]

    @property
    def lower_bound(self) -> int:
        """The most bytes that are live at one time: no plan can be smaller."""
        return peak_of_live(block for block in self.blocks.values() if block.value.kind not in VARIABLES)


@dataclass(frozen=True)
class Scratch:
    """Space that a node's code needs for itself while it runs: one tensor like another, or a stack of so many."""

    like: Value
    count: int


ScratchOf = Callable[[Node], Scratch | None]


def plan_graph(graph: Graph, batch: int, base: int, placed: Mapping[str, int], scratch: ScratchOf) -> Plan:
    """Plans a graph at a batch size; variables are where `placed` says, everything else starts at `base`."""
    planner = Planner(graph, batch, scratch)
    variables = {value.name: value for value in graph.of_kind(*VARIABLES)}
    planner.visit(graph, {value: variables[name] for name, value in graph.outputs.items() if name in variables})
    plan = planner.plan
    planner.time += 1
    planner.touch((*graph.inputs, *graph.outputs.values()))
    free = [block for block in plan.blocks.values() if block.value not in variables.values()]
    for name, value in variables.items():
        plan.blocks[value].offset = placed[name]
    plan.base, plan.size = base, assign_offsets(free, base)
    plan.naive = sum(block.bytes for block in free)
    return plan


class Planner:
    """Walks a graph in running order; collects blocks with their lifetimes, and who shares whose."""

    def __init__(self, graph: Graph, batch: int, scratch: ScratchOf):
        self.batch = batch
        self.scratch = scratch
        self.time = 0
        self.plan = Plan(graph, {}, {}, set(), {})
        self.strides: dict[Value, Strides] = {}
        for value in graph.inputs:
            self.own(value, tuple(range(value.type.rank)))

    def own(self, value: Value, order: Order) -> None:
        """A block of its own from now on."""
        self.plan.owner[value] = value
        self.plan.blocks[value] = Block(value, value.type.bytes_at(self.batch), self.time, self.time)
        self.plan.orders[value] = order
        self.strides[value] = strides_in_order(value.type.shape, order)

    def share(self, value: Value, other: Value, strides: Strides) -> None:
        """Lives in the bytes of a tensor that is there already."""
        self.plan.owner[value] = self.plan.owner[other]
        self.strides[value] = strides

    def touch(self, values: Iterable[Value]) -> None:
        for value in values:
            if not isinstance(value, Literal):
                self.plan.block(value).last = self.time

    def visit(self, graph: Graph, replaced: Mapping[Value, Value]) -> None:
        """`replaced`: new value -> the variable or carry of this graph whose place it takes in the end."""
        reads = last_reads(graph)
        ends = {group[-1]: group[0] for group in groups(graph)}
        starts: dict[Node, int] = {}
        for position, node in enumerate(graph.nodes):
            self.time += 1
            starts[node] = self.time
            self.touch(node.operands)
            if "body" in node.attributes:
                self.visit_scan(node)
                if node in ends:
                    self.keep_apart(starts[ends[node]])
                continue
            (result,) = node.results
            order = preferred_order(node, 0, self.strides)
            if result in self.plan.slots:
                self.plan.block(result).last = self.time
            elif (view := self.view_of(node)) is not None:
                self.plan.views.add(node)
                self.share(result, node.operands[0], view)
            elif result in replaced and self.may_overwrite(node, replaced[result], reads, position):
                self.share(result, replaced[result], self.strides[replaced[result]])
            else:
                self.own(result, order)
            if (scratch := self.scratch(node)) is not None:
                self.own_scratch(node, scratch)

    def keep_apart(self, start: int) -> None:
        """Scans that run at the same time share nothing: what is alive in any of them is alive in all of them."""
        for block in self.plan.blocks.values():
            if block.last >= start:
                block.first, block.last = min(block.first, start), self.time

    def own_scratch(self, node: Node, scratch: Scratch) -> None:
        shape = scratch.like.type.shape
        order = order_of(self.strides[scratch.like]) or batch_last(shape)
        if scratch.count:
            shape, order = (scratch.count, *shape), (0, *(axis + 1 for axis in order))
        self.plan.scratch[node] = Value(TensorType(node.result.type.dtype, shape), kind="scratch")
        self.own(self.plan.scratch[node], order)

    def view_of(self, node: Node) -> Strides | None:
        """The strides of the result if NumPy can give it as a view of the first operand."""
        if VIEW not in node.op.traits or isinstance(node.operands[0], Literal):
            return None
        return view_strides(node, self.strides[node.operands[0]])

    def may_overwrite(self, node: Node, old: Value, reads: Mapping[Value, int], position: int) -> bool:
        """Nobody reads the old value later; this node may, if it works element by element on the very same tensor."""
        if node.result.type != old.type or reads.get(old, -1) > position:
            return False
        sharing = [
            v for v in node.operands if not isinstance(v, Literal) and self.plan.owner[v] is self.plan.owner[old]
        ]
        return not sharing or (ELEMENTWISE in node.op.traits and all(value is old for value in sharing))

    def visit_scan(self, node: Node) -> None:
        """Carries live in the blocks of the final results; per-step outputs are written straight into the stacks."""
        body, carries = node.body, node.attributes["carries"]
        constants = carries + node.attributes["sequences"]
        for index, result in enumerate(node.results):
            self.own(result, preferred_order(node, index, self.strides))
        for index, (inner, outer) in enumerate(zip(body.inputs, node.operands, strict=True)):
            home = node.results[index] if index < carries else outer
            if not isinstance(home, Literal):
                self.share(inner, home, self.strides[home][1 if carries <= index < constants else 0 :])
        values = list(body.outputs.values())
        for value, stack in zip(values[carries:], node.results[carries:], strict=True):
            self.plan.slots[value] = stack
            self.share(value, stack, self.strides[stack][1:])
        self.visit(body, dict(zip(values[:carries], body.inputs, strict=False)))
        self.time += 1  # the end of a step: new carries find their place, what is from outside is still needed
        self.touch((*body.outputs.values(), *node.operands, *node.results))


def last_reads(graph: Graph) -> dict[Value, int]:
    """The position of the last node that reads each value, through views too; outputs are read after all."""
    reads: dict[Value, int] = dict.fromkeys(graph.outputs.values(), len(graph.nodes))
    for position, node in reversed(list(enumerate(graph.nodes))):
        through = reads.get(node.results[0], position) if VIEW in node.op.traits else position
        for operand in node.operands:
            reads[operand] = max(reads.get(operand, -1), position, through)
    return reads
