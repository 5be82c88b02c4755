"""Where every tensor of a graph lives: lifetimes to offsets in one arena. A pure function of the graph and the batch.

A tensor is either a block of its own or shares the bytes of another: views, per-step outputs of a scan inside their
stack, new values written over the variable or carry that they replace, and results of elementwise nodes written over
an operand that nobody reads again. Time counts nodes in the order they run; the body of a scan runs inside its node.

A region with tiles (compiler/targets/numpy/regions.py) has a plan of its own for what one tile needs besides parts of
operands and results; of that there is one copy for each thread that works on the region, its lane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compiler.ir.graph import VARIABLES, Graph, Literal, Node, Value, readers_of
from compiler.ir.op import ELEMENTWISE, VIEW
from compiler.ir.types import TensorType, extent
from compiler.planning.packing import Block, assign_offsets, peak_of_live
from compiler.planning.schedule import groups
from compiler.planning.strides import Order, Strides, batch_last, order_of, strides_in_order
from compiler.targets.cupy.regions import read_at_own_place
from compiler.targets.numpy.division import SHARED, Tile, tile_of
from runtime.cpu.threads import LANES


@dataclass(eq=False)
class Plan:
    """Placement of one graph's tensors: `owner` leads from a value to the value whose block holds it."""

    graph: Graph
    blocks: dict[Value, Block]
    owner: dict[Value, Value]
    views: set[Node]
    orders: dict[Value, Order]  # of the axes of each block, outermost first
    scratch: dict[Node, Value] = field(default_factory=dict)
    tiles: dict[Node, TilePlan] = field(default_factory=dict)
    base: int = 0  # where the variables end
    size: int = 0  # of the arena, variables included
    naive: int = 0  # bytes if every tensor ever computed and all scratch space had its own; variables apart
    in_place: dict[Value, Value] = field(default_factory=dict)  # result -> the operand that it is written over
    slots: dict[Value, Value] = field(default_factory=dict)  # body value -> the stacked result it is a step of

    def block(self, value: Value) -> Block:
        return self.blocks[self.owner[value]]

    @property
    def lower_bound(self) -> int:
        """The most bytes that are live at one time: no plan can be smaller."""
        return peak_of_live(block for block in self.blocks.values() if block.value.kind not in VARIABLES)


@dataclass(frozen=True)
class TilePlan:
    """How one tile of a region is computed: offsets in its plan count from the start of a lane."""

    tile: Tile
    plan: Plan
    lane_bytes: int


@dataclass
class Frame:
    """A graph while it is visited: who of its values is read when, and which blocks hold only them."""

    reads: Mapping[Value, int]
    readers: Mapping[Value, Sequence[Node | None]] = field(default_factory=dict)
    own: dict[Value, int] = field(default_factory=dict)  # owner of a block made here -> position of its last reader


@dataclass(frozen=True)
class Scratch:
    """Space that a node's code needs for itself while it runs; its axes lie in memory as they stand, or in an order."""

    type: TensorType
    order: Order | None = None


@dataclass(frozen=True)
class Placement:
    """What a target says about where tensors live."""

    scratch: Callable[[Node], Scratch | None]
    # of the axes of a result, by its number and the strides of all tensors that are there
    order: Callable[[Node, int, Mapping[Value, Strides]], Order]
    # of the result as a view of the first operand, whose strides are given; None where it has to be computed
    view: Callable[[Node, Strides, Sequence[Node | None]], Strides | None]


def plan_graph(graph: Graph, batch: int, base: int, placed: Mapping[str, int], placement: Placement) -> Plan:
    """Plans a graph at a batch size; variables are where `placed` says, everything else starts at `base`."""
    planner = Planner(graph, batch, placement)
    variables = {value.name: value for value in graph.of_kind(*VARIABLES)}
    planner.visit(graph, {value: variables[name] for name, value in graph.outputs.items() if name in variables})
    plan = planner.plan
    planner.time += 1
    planner.touch((*graph.inputs, *graph.outputs.values()))
    held = set(variables.values())
    free = [block for block in plan.blocks.values() if block.value not in held]
    for name, value in variables.items():
        plan.blocks[value].offset = placed[name]
    plan.base, plan.size = base, assign_offsets(free, base)
    given = sum(value.type.bytes_at(batch) for value in graph.inputs if value.kind not in VARIABLES)
    extra = sum(plan.blocks[value].bytes for value in plan.scratch.values())
    plan.naive = given + bytes_computed(graph, batch) + extra
    return plan


def bytes_computed(graph: Graph, batch: int) -> int:
    """All that nodes write, at every step of a scan, in regions too; views write nothing."""
    total = 0
    for node in graph.nodes:
        if VIEW not in node.op.traits and node.op.name != "fused":  # results of a region are those of its body
            total += sum(result.type.bytes_at(batch) for result in node.results)
        if "body" in node.attributes:
            total += bytes_computed(node.body, batch) * (scan_length(node, batch) if node.op.name == "scan" else 1)
    return total


def scan_length(node: Node, batch: int) -> int:
    return extent(node.operands[node.attributes["carries"]].type.shape[:1]).at(batch)


class Planner:
    """Walks a graph in running order; collects blocks with their lifetimes, and who shares whose."""

    def __init__(self, graph: Graph, batch: int, placement: Placement):
        self.batch = batch
        self.placement = placement
        self.time = 0
        self.plan = Plan(graph, {}, {}, set(), {})
        self.strides: dict[Value, Strides] = {}
        self.frame = Frame({})
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
        self.plan.owner[value] = owner = self.plan.owner[other]
        self.strides[value] = strides
        if owner in self.frame.own:
            self.frame.own[owner] = max(self.frame.own[owner], self.frame.reads.get(value, -1))

    def touch(self, values: Iterable[Value]) -> None:
        for value in values:
            if not isinstance(value, Literal):
                self.plan.block(value).last = self.time

    def visit(self, graph: Graph, replaced: Mapping[Value, Value]) -> None:
        """`replaced`: new value -> the variable or carry of this graph whose place it takes in the end."""
        outer, self.frame = self.frame, Frame(last_reads(graph), readers_of(graph))
        ends = {group[-1]: group[0] for group in groups(graph)}
        starts: dict[Node, int] = {}
        for position, node in enumerate(graph.nodes):
            self.time += 1
            starts[node] = self.time
            self.touch(node.operands)
            if node.op.name == "scan":
                self.visit_scan(node)
                if node in ends:
                    self.keep_apart(starts[ends[node]])
            elif node.op.name == "fused":
                self.visit_region(node, replaced, position)
            else:
                self.visit_node(node, replaced, position)
        self.frame = outer

    def visit_node(self, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
        for index, result in enumerate(node.results):
            order = self.placement.order(node, index, self.strides)
            if result in self.plan.slots:
                self.plan.block(result).last = self.time
            elif (view := self.view_of(node)) is not None:
                self.plan.views.add(node)
                self.share(result, node.operands[0], view)
            elif result in replaced and self.may_overwrite(node, replaced[result], position):
                self.share(result, replaced[result], self.strides[replaced[result]])
            elif (dying := self.dying_operand(node, result, order, position)) is not None:
                self.plan.in_place[result] = dying
                self.share(result, dying, self.strides[dying])
            else:
                self.own_result(result, order)
        self.own_scratch(node)

    def own_result(self, value: Value, order: Order) -> None:
        self.own(value, order)
        self.frame.own[value] = self.frame.reads.get(value, -1)

    def dying_operand(self, node: Node, result: Value, order: Order, position: int) -> Value | None:
        """An operand of an elementwise node whose bytes the result may take: nobody reads them after this node."""
        if ELEMENTWISE not in node.op.traits:
            return None
        strides = strides_in_order(result.type.shape, order)
        for operand in node.operands:
            if isinstance(operand, Literal) or operand.type != result.type or self.strides[operand] != strides:
                continue
            owner = self.plan.owner[operand]
            others = [v for v in node.operands if v is not operand and self.plan.owner.get(v) is owner]
            if self.frame.own.get(owner, position + 1) <= position and not others:
                return operand
        return None

    def keep_apart(self, start: int) -> None:
        """Scans that run at the same time share nothing: what is alive in any of them is alive in all of them."""
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
        return self.placement.view(node, self.strides[node.operands[0]], self.frame.readers[node.result])

    def may_overwrite(self, node: Node, old: Value, position: int) -> bool:
        """Nobody reads the old value later; this node may, if it works element by element on the very same tensor."""
        if len(node.results) > 1 or node.result.type != old.type or self.frame.reads.get(old, -1) > position:
            return False
        sharing = [
            v for v in node.operands if not isinstance(v, Literal) and self.plan.owner[v] is self.plan.owner[old]
        ]
        return not sharing or (ELEMENTWISE in node.op.traits and all(value is old for value in sharing))

    def visit_region(self, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
        if node.attributes["step"]:
            self.visit_tiled(node, replaced, position)
        else:
            self.visit_kernel(node, replaced, position)

    def visit_kernel(self, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
        """A region that runs as one kernel: what is between its operands and its results is nowhere in memory."""
        for index, result in enumerate(node.results):
            home = self.home_in_kernel(node, result, replaced.get(result), position)
            if result in self.plan.slots:
                self.plan.block(result).last = self.time
            elif home is not None:
                self.plan.in_place[result] = home
                self.share(result, home, self.strides[home])
            else:
                self.own_result(result, self.placement.order(node, index, self.strides))
        self.own_scratch(node)

    def home_in_kernel(self, node: Node, result: Value, replaced: Value | None, position: int) -> Value | None:
        """The variable or the dying operand whose place a result may take, element by element."""
        taken = {self.plan.owner[other] for other in node.results if other in self.plan.owner}
        operands = [value for value in node.operands if not isinstance(value, Literal)]
        read_once = read_at_own_place(node.body)
        for value in (replaced, *operands):
            if value is None or value.type != result.type or self.plan.owner[value] in taken:
                continue
            sharing = [
                (operand, inner)
                for operand, inner in zip(node.operands, node.body.inputs, strict=True)
                if not isinstance(operand, Literal) and self.plan.owner[operand] is self.plan.owner[value]
            ]
            if any(operand is not value or inner not in read_once for operand, inner in sharing):
                continue
            if value is replaced:
                free = self.frame.reads.get(value, -1) <= position
            else:
                free = self.frame.own.get(self.plan.owner[value], position + 1) <= position
            if free:
                return value
        return None

    def visit_tiled(self, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
        """Results in the place of variables or of dying operands, or of their own; then what a tile needs besides."""
        tile = tile_of(node)
        whole = self.planner_of(
            node.body, node.operands
        )  # in a tile of one channel it does not show where channels lie
        whole.visit(node.body, {})
        for name, result in zip(node.body.outputs, node.results, strict=True):
            order = order_of(whole.strides[node.body.outputs[name]]) or batch_last(result.type.shape)
            home = self.home_in_region(node, tile, name, order, replaced.get(result), position)
            if home is not None:
                self.plan.in_place[result] = home
                self.share(result, home, self.strides[home])
            else:
                self.own_result(result, order)
        self.plan.tiles[node] = planned = self.plan_tile(node, tile)
        if planned.lane_bytes:
            lanes = TensorType("u8", (min(LANES, tile.count), planned.lane_bytes))
            self.plan.scratch[node] = scratch = Value(lanes, kind="scratch")
            self.own(scratch, (0, 1))

    def plan_tile(self, node: Node, tile: Tile) -> TilePlan:
        """The plan of one tile; inputs and outputs are parts of operands and results, the rest is in the lane."""
        planner = self.planner_of(tile.graph, [node.operands[index] for index, _ in tile.operands])
        for inner, result in zip(tile.graph.outputs.values(), node.results, strict=True):
            planner.own(inner, batch_last(inner.type.shape))
            planner.strides[inner] = self.strides[result]
            planner.plan.slots[inner] = result
        given = set(planner.plan.blocks)
        planner.visit(tile.graph, {})
        lane = [block for value, block in planner.plan.blocks.items() if value not in given]
        return TilePlan(tile, planner.plan, assign_offsets(lane, 0))

    def planner_of(self, body: Graph, sources: Sequence[Value]) -> Planner:
        """For a graph whose inputs are tensors of this one, or parts of them."""
        planner = Planner(body, self.batch, self.placement)
        planner.strides.update((v, self.strides[source]) for v, source in zip(body.inputs, sources, strict=True))
        return planner

    def home_in_region(
        self, node: Node, tile: Tile, name: str, order: Order, replaced: Value | None, position: int
    ) -> Value | None:
        """The variable or the dying operand whose place an output of a region may take, tile by tile."""
        type, inner = node.body.outputs[name].type, tile.graph.outputs[name]
        taken = {self.plan.owner[result] for result in node.results if result in self.plan.owner}
        strides = strides_in_order(type.shape, order)
        for value in (replaced, *node.operands):
            if value is None or isinstance(value, Literal) or value.type != type:
                continue
            owner = self.plan.owner[value]
            if value is replaced:
                free = self.frame.reads.get(value, -1) <= position
            else:
                free = self.frame.own.get(owner, position + 1) <= position and self.strides[value] == strides
            if free and owner not in taken and self.read_before_written(node, tile, value, inner):
                return value
        return None

    def read_before_written(self, node: Node, tile: Tile, value: Value, inner: Value) -> bool:
        """Whether a tile reads of `value` and its bytes only its own part, and not after `inner` is written there."""
        reads = last_reads(tile.graph)
        writer = inner.node
        assert writer is not None
        written = tile.graph.nodes.index(writer)
        for source, (index, axis) in zip(tile.graph.inputs, tile.operands, strict=True):
            operand = node.operands[index]
            if isinstance(operand, Literal) or self.plan.owner[operand] is not self.plan.owner[value]:
                continue
            last = reads.get(source, -1)
            at_once = ELEMENTWISE in writer.op.traits and source in writer.operands
            if operand is not value or axis == SHARED or last > written or (last == written and not at_once):
                return False
        return True

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
