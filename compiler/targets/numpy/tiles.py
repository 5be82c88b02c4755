"""Regions that run in tiles: the body on parts of its tensors, their placement, and the regions that can run this way.

A tile works on parts of operands and results. The rest of its memory is planned like that of a separate graph, and each
thread that works on the region has its own copy, a *lane*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compiler.diagnostics import UserError
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Module, Node, Value
from compiler.ir.op import ELEMENTWISE, LOOP, REGION, VIEW
from compiler.ir.types import TensorType
from compiler.planning.memory import Planner, RegionPlan, last_reads
from compiler.planning.packing import assign_offsets
from compiler.planning.strides import batch_last, order_of
from compiler.targets.numpy.division import SHARED, divided_axis, operand_axes
from runtime.cpu.threads import LANES


@dataclass(frozen=True)
class Tile:
    """The body of a region for one tile: the same nodes on parts of the tensors. There are `count` tiles."""

    graph: Graph
    operands: list[tuple[int, int]]  # for each input of the graph: an operand of the region, and the axis or SHARED
    count: int


def tile_of(region: Node) -> Tile:
    """The tile of a `fused` node with a step; all nodes of its body are divisible."""
    step = region.attributes["step"]
    builder = Builder(Graph(region.body.name))
    positions = {value: i for i, value in enumerate(region.body.inputs)}
    parts: dict[tuple[Value, int], Value] = {}  # one node may read parts of an input, and another all of it
    made: dict[Value, Value] = {}

    def part(value: Value, axis: int) -> Value:
        if isinstance(value, Literal) or value in made:
            return made.get(value, value)
        if (value, axis) not in parts:
            type = value.type if axis == SHARED else shortened(value.type, axis, step)
            parts[value, axis] = builder.input(f"x{len(parts)}", type, "")
        return parts[value, axis]

    for node in region.body.nodes:
        axes = operand_axes(node)
        assert axes is not None, f"{node.op.name} cannot be divided, but is in a region with tiles"
        operands = [part(value, axis) for value, axis in zip(node.operands, axes, strict=True)]
        results = builder.emit_like(node, operands, **shortened_attributes(node, step))
        made.update(zip(node.results, results, strict=True))
    builder.graph.outputs = {name: made[value] for name, value in region.body.outputs.items()}
    divided = region.results[0].type
    count = divided.shape[divided_axis(divided)] // step  # type: ignore[index,operator]
    return Tile(builder.graph, [(positions[value], axis) for value, axis in parts], count)


def shortened(type: TensorType, axis: int, step: int) -> TensorType:
    return type.with_shape((*type.shape[:axis], step, *type.shape[axis + 1 :]))


def shortened_attributes(node: Node, step: int) -> dict[str, Any]:
    """The attributes of a node that contain the shape of the result, for a tile."""
    axis, attributes = divided_axis(node.results[0].type), node.attributes
    assert axis is not None
    shapes = {name: attributes[name] for name in ("shape", "stop") if name in attributes}
    return {name: (*shape[:axis], step, *shape[axis + 1 :]) for name, shape in shapes.items()}


# Memory of a region ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TilePlan(RegionPlan):
    """The plan of one tile of a region."""

    tile: Tile


def place_region(planner: Planner, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
    """Places results over variables or operands, tile by tile, or in blocks; then the other tensors of a tile."""
    tile = tile_of(node)
    body = planner.inside(node.body, node.operands)  # orders come from here: a tile of one channel does not show them
    body.visit(node.body, {})
    in_body = dict(zip(node.results, node.body.outputs.values(), strict=True))
    in_tile = dict(zip(node.results, tile.graph.outputs.values(), strict=True))

    def reads_in_place(node: Node, result: Value, value: Value) -> bool:
        return reads_before_writing(planner, node, tile, value, in_tile[result])

    for result in node.results:
        order = order_of(body.strides[in_body[result]]) or batch_last(result.type.shape)
        planner.place_result(node, result, order, replaced.get(result), position, reads_in_place)
    planner.plan.regions[node] = planned = plan_tile(planner, node, tile)
    if planned.bytes_per_thread:
        lanes = TensorType("u8", (min(LANES, tile.count), planned.bytes_per_thread))
        planner.plan.scratch[node] = scratch = Value(lanes, kind="scratch")
        planner.own(scratch, (0, 1))


def plan_tile(planner: Planner, node: Node, tile: Tile) -> TilePlan:
    """The plan of one tile: inputs and outputs are parts of operands and results, all other tensors are in the lane."""
    inside = planner.inside(tile.graph, [node.operands[index] for index, _ in tile.operands])
    for inner, result in zip(tile.graph.outputs.values(), node.results, strict=True):
        inside.own(inner, batch_last(inner.type.shape))
        inside.strides[inner] = planner.strides[result]
        inside.plan.slots[inner] = result
    given = set(inside.plan.blocks)
    inside.visit(tile.graph, {})
    lane = [block for value, block in inside.plan.blocks.items() if value not in given]
    return TilePlan(inside.plan, assign_offsets(lane, 0), [index for index, _ in tile.operands], tile)


def reads_before_writing(planner: Planner, node: Node, tile: Tile, value: Value, inner: Value) -> bool:
    """Whether a tile reads only its own part of the bytes of `value`, and not after `inner` is written there."""
    reads, sharing = last_reads(tile.graph), planner.sharing(node, value)
    writer = inner.node
    assert writer is not None
    written = tile.graph.nodes.index(writer)
    for source, (index, axis) in zip(tile.graph.inputs, tile.operands, strict=True):
        operand = node.operands[index]
        if not any(operand is shared for shared in sharing):
            continue
        last = reads.get(source, -1)
        at_once = ELEMENTWISE in writer.op.traits and source in writer.operands
        if operand is not value or axis == SHARED or last > written or (last == written and not at_once):
            return False
    return True


# Checks ---------------------------------------------------------------------------------------------------------------


def check_regions(module: Module) -> None:
    """Raises UserError for a region that cannot run in tiles, as IR text may contain."""
    for graph in module.values():
        for node in graph.walk():
            in_scan = LOOP in node.op.traits and any(REGION in each.op.traits for each in node.body.walk())
            problem = "a region in a scan" if in_scan else problem_of(node) if REGION in node.op.traits else ""
            if problem:
                expected = "nodes that can be divided along one axis, and a step that divides its length"
                raise UserError.plain(f"a region of {graph.name} cannot run in tiles", expected=expected, found=problem)


def problem_of(region: Node) -> str:
    """Why a `fused` node cannot run; empty if it can."""
    step, lengths = region.attributes["step"], set()
    if not step:
        return "a region without a step, which the pass fusion would replace"
    for node in region.body.nodes:
        if operand_axes(node) is None:
            return node.op.name
        axes = [(result.type, divided_axis(result.type)) for result in node.results]
        lengths |= {type.shape[axis] for type, axis in axes if axis is not None}
    outputs = list(region.body.outputs.values())
    if len(set(outputs)) < len(outputs) or any(v.node is None or VIEW in v.node.op.traits for v in outputs):
        return "a result that is an input, a view, or another result"
    if any(not isinstance(length, int) or length % step for length in lengths) or len(lengths) > 1:
        return f"a step of {step} for lengths {', '.join(map(str, lengths))}"
    return ""
