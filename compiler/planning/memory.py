"""Memory planning: an offset in one arena for every tensor of a graph. A pure function of the graph and the batch.

A tensor either has its own block or shares the bytes of another: views, per-step outputs of a scan inside their stack,
new values written over the variable or carry that they replace, and results written over an operand that is not read
again. Time counts nodes in the order they run; the body of a scan runs inside its node.

The placement of a fused region depends on how it runs, so it belongs to the target (`Placement.region`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compiler.ir.graph import VARIABLES, Graph, Literal, Node, Value, readers_of
from compiler.ir.op import ELEMENTWISE, LOOP, REGION, VIEW
from compiler.ir.types import TensorType, extent
from compiler.planning.packing import Block, assign_offsets, peak_of_live
from compiler.planning.schedule import groups
from compiler.planning.strides import Order, Strides, strides_in_order

# (node, result, value): whether the node reads the bytes of the value in place if its result is written there
InPlace = Callable[[Node, Value, Value], bool]


@dataclass(eq=False)
class Plan:
    """Placement of one graph's tensors: `owner` maps each value to the value whose block it is in."""

    graph: Graph
    blocks: dict[Value, Block]
    owner: dict[Value, Value]
    views: set[Node]
    orders: dict[Value, Order]  # of the axes of each block, outermost first
    scratch: dict[Node, Value] = field(default_factory=dict)
    regions: dict[Node, RegionPlan] = field(default_factory=dict)  # of those that need a separate plan
    base: int = 0  # where the variables end
    size: int = 0  # of the arena, variables included
    naive: int = 0  # bytes if every tensor ever computed and all scratch space had its own; without variables
    in_place: dict[Value, Value] = field(default_factory=dict)  # result -> the tensor that it is written over
    slots: dict[Value, Value] = field(default_factory=dict)  # body value -> the stacked result that it is one step of

    def block(self, value: Value) -> Block:
        return self.blocks[self.owner[value]]

    @property
    def lower_bound(self) -> int:
        """The maximum of live bytes over time: no plan can be smaller."""
        return peak_of_live(block for block in self.blocks.values() if block.value.kind not in VARIABLES)


@dataclass(frozen=True)
class RegionPlan:
    """The plan of the inside of a region; offsets count from the start of a thread's part of the scratch space."""

    plan: Plan
    bytes_per_thread: int
    operands: Sequence[int]  # for each input of the plan's graph: the region's operand that it is, or is part of


@dataclass
class Scope:
    """A graph while it is visited: the last read and the readers of each value, and the blocks made in it."""

    reads: Mapping[Value, int]
    readers: Mapping[Value, Sequence[Node | None]] = field(default_factory=dict)
    made: dict[Value, int] = field(default_factory=dict)  # owner of a block made here -> position of the last reader


@dataclass(frozen=True)
class Scratch:
    """Space that a node's code needs while it runs; `order` is of its axes in memory, by default as in the type."""

    type: TensorType
    order: Order | None = None


@dataclass(frozen=True)
class Placement:
    """A target's choices for placing tensors in memory."""

    scratch: Callable[[Node], Scratch | None]
    # the order of the axes of a result, by its number and the strides of all existing tensors
    order: Callable[[Node, int, Mapping[Value, Strides]], Order]
    # the strides of the result as a view of the first operand, whose strides are given; None if it must be computed
    view: Callable[[Node, Strides, Sequence[Node | None]], Strides | None]
    # places the results of a fused region; arguments as for `Planner.place_node`
    region: Callable[[Planner, Node, Mapping[Value, Value], int], None]


def plan_graph(graph: Graph, batch: int, base: int, placed: Mapping[str, int], placement: Placement) -> Plan:
    """Plans a graph at a batch size; variables have the offsets in `placed`, everything else starts at `base`."""
    planner = Planner(graph, batch, placement)
    variables = {value.name: value for value in graph.of_kind(*VARIABLES)}
    planner.visit(graph, {value: variables[name] for name, value in graph.outputs.items() if name in variables})
    plan = planner.plan
    planner.time += 1
    planner.touch((*graph.inputs, *graph.outputs.values()))
    fixed = set(variables.values())
    free = [block for block in plan.blocks.values() if block.value not in fixed]
    for name, value in variables.items():
        plan.blocks[value].offset = placed[name]
    plan.base, plan.size = base, assign_offsets(free, base)
    given = sum(value.type.bytes_at(batch) for value in graph.inputs if value.kind not in VARIABLES)
    extra = sum(plan.blocks[value].bytes for value in plan.scratch.values())
    plan.naive = given + bytes_computed(graph, batch) + extra
    return plan


def bytes_computed(graph: Graph, batch: int) -> int:
    """All bytes that nodes write, in regions and in every step of a scan too; views write nothing."""
    total = 0
    for node in graph.nodes:
        if not node.op.traits & {VIEW, REGION}:  # results of a region are those of its body
            total += sum(result.type.bytes_at(batch) for result in node.results)
        if "body" in node.attributes:
            total += bytes_computed(node.body, batch) * (scan_length(node, batch) if LOOP in node.op.traits else 1)
    return total


def scan_length(node: Node, batch: int) -> int:
    return extent(node.operands[node.attributes["carries"]].type.shape[:1]).at(batch)


class Planner:
    """Walks a graph in running order; collects blocks with their lifetimes, and the values sharing them."""

    def __init__(self, graph: Graph, batch: int, placement: Placement):
        self.batch = batch
        self.placement = placement
        self.time = 0
        self.plan = Plan(graph, {}, {}, set(), {})
        self.strides: dict[Value, Strides] = {}
        self.scope = Scope({})
        for value in graph.inputs:
            self.own(value, tuple(range(value.type.rank)))

    def own(self, value: Value, order: Order) -> None:
        """Gives a value its own block, live from now on."""
        self.plan.owner[value] = value
        self.plan.blocks[value] = Block(value, value.type.bytes_at(self.batch), self.time, self.time)
        self.plan.orders[value] = order
        self.strides[value] = strides_in_order(value.type.shape, order)

    def share(self, value: Value, other: Value, strides: Strides) -> None:
        """Puts a value into the bytes of an existing tensor."""
        self.plan.owner[value] = owner = self.plan.owner[other]
        self.strides[value] = strides
        if owner in self.scope.made:
            self.scope.made[owner] = max(self.scope.made[owner], self.scope.reads.get(value, -1))

    def touch(self, values: Iterable[Value]) -> None:
        for value in values:
            if not isinstance(value, Literal):
                self.plan.block(value).last = self.time

    def visit(self, graph: Graph, replaced: Mapping[Value, Value]) -> None:
        """Places all nodes of a graph. `replaced`: new value -> the variable or carry that it replaces."""
        outer, self.scope = self.scope, Scope(last_reads(graph), readers_of(graph))
        ends = {group[-1]: group[0] for group in groups(graph)}
        starts: dict[Node, int] = {}
        for position, node in enumerate(graph.nodes):
            self.time += 1
            starts[node] = self.time
            self.touch(node.operands)
            if LOOP in node.op.traits:
                self.visit_scan(node)
                if node in ends:
                    self.keep_apart(starts[ends[node]])
            elif REGION in node.op.traits:
                self.placement.region(self, node, replaced, position)
            else:
                self.place_node(node, replaced, position)
        self.scope = outer

    def place_node(self, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
        """Places the results of the node at this position of the graph that is being visited."""
        for index, result in enumerate(node.results):
            view = None if result in self.plan.slots else self.view_of(node)
            if view is not None:
                self.plan.views.add(node)
                self.share(result, node.operands[0], view)
            else:
                order = self.placement.order(node, index, self.strides)
                self.place_result(node, result, order, replaced.get(result), position, self.reads_in_place)
        self.own_scratch(node)

    def place_result(
        self, node: Node, result: Value, order: Order, replaced: Value | None, position: int, reads_in_place: InPlace
    ) -> None:
        """Puts a result over the value it replaces or an operand if it may be written there, else in its own block."""
        if result in self.plan.slots:
            self.plan.block(result).last = self.time
            return
        home = self.home_of(node, result, order, replaced, position, reads_in_place)
        if home is None:
            self.own(result, order)
            self.scope.made[result] = self.scope.reads.get(result, -1)
        else:
            self.plan.in_place[result] = home
            self.share(result, home, self.strides[home])

    def home_of(
        self, node: Node, result: Value, order: Order, replaced: Value | None, position: int, reads_in_place: InPlace
    ) -> Value | None:
        """The variable, carry or operand whose bytes a result may overwrite; None if there is none.

        Those bytes are not read after this node, and no other result uses them. The node reads them in place: each
        element before, or just when, the element of the result at the same position is written. A value to be replaced
        may have its axes in another order than the result would.
        """
        used = {self.plan.owner[other] for other in node.results if other in self.plan.owner}
        strides = strides_in_order(result.type.shape, order)
        for value in (replaced, *node.operands):
            if value is None or isinstance(value, Literal) or value.type != result.type:
                continue
            owner = self.plan.owner[value]
            if value is replaced:
                free = self.scope.reads.get(value, -1) <= position
            else:
                free = self.scope.made.get(owner, position + 1) <= position and self.strides[value] == strides
            if free and owner not in used and reads_in_place(node, result, value):
                return value
        return None

    def reads_in_place(self, node: Node, result: Value, value: Value) -> bool:
        """For an op: it does not read the bytes of `value`, or only through `value`, element by element."""
        sharing = self.sharing(node, value)
        return not sharing or (ELEMENTWISE in node.op.traits and all(operand is value for operand in sharing))

    def sharing(self, node: Node, value: Value) -> list[Value]:
        """The operands of a node that share their bytes with a value, including the value itself."""
        owner = self.plan.owner[value]
        return [v for v in node.operands if not isinstance(v, Literal) and self.plan.owner[v] is owner]

    def keep_apart(self, start: int) -> None:
        """Scans that run at the same time share nothing: a block that is live in one of them is live in all of them."""
        for block in self.plan.blocks.values():
            if block.last >= start:
                block.first, block.last = min(block.first, start), self.time

    def own_scratch(self, node: Node) -> None:
        scratch = self.placement.scratch(node)
        if scratch is not None:
            self.plan.scratch[node] = value = Value(scratch.type, kind="scratch")
            self.own(value, scratch.order or tuple(range(value.type.rank)))

    def view_of(self, node: Node) -> Strides | None:
        """The strides of the result if it can be a view of the first operand."""
        if VIEW not in node.op.traits or isinstance(node.operands[0], Literal):
            return None
        return self.placement.view(node, self.strides[node.operands[0]], self.scope.readers[node.result])

    def inside(self, body: Graph, sources: Sequence[Value]) -> Planner:
        """A planner for a body whose inputs are tensors of this graph or parts of them."""
        planner = Planner(body, self.batch, self.placement)
        planner.strides.update((v, self.strides[source]) for v, source in zip(body.inputs, sources, strict=True))
        return planner

    def visit_scan(self, node: Node) -> None:
        """Carries live in the blocks of the final results; per-step outputs are written straight into the stacks."""
        body, carries = node.body, node.attributes["carries"]
        constants = carries + node.attributes["sequences"]
        for index, result in enumerate(node.results):
            self.own(result, self.placement.order(node, index, self.strides))
        for index, (inner, outer) in enumerate(zip(body.inputs, node.operands, strict=True)):
            home = node.results[index] if index < carries else outer
            if not isinstance(home, Literal):
                self.share(inner, home, self.strides[home][1 if carries <= index < constants else 0 :])
        values = list(body.outputs.values())
        for value, stack in zip(values[carries:], node.results[carries:], strict=True):
            self.plan.slots[value] = stack
            self.share(value, stack, self.strides[stack][1:])
        self.visit(body, dict(zip(values[:carries], body.inputs, strict=False)))
        self.time += 1  # the end of a step: new carries are copied into place, tensors from outside are still needed
        self.touch((*body.outputs.values(), *node.operands, *node.results))


def last_reads(graph: Graph) -> dict[Value, int]:
    """The position of the last node that reads each value, also through views; outputs are read after all nodes."""
    reads: dict[Value, int] = dict.fromkeys(graph.outputs.values(), len(graph.nodes))
    for position, node in reversed(list(enumerate(graph.nodes))):
        through = reads.get(node.results[0], position) if VIEW in node.op.traits else position
        for operand in node.operands:
            reads[operand] = max(reads.get(operand, -1), position, through)
    return reads
