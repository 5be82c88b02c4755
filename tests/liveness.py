"""Checks a memory plan by tracking which tensor last wrote each range of bytes; shares no code with the planner."""

from __future__ import annotations

from compiler.ir.graph import Literal, Node, Value
from compiler.ir.op import ELEMENTWISE
from compiler.planning.memory import Plan
from compiler.planning.packing import Block


def check_liveness(plan: Plan) -> None:
    """Goes through the graph in order, top level only, tracking which tensor each block holds; a view is its operand.

    Raises AssertionError if a node, or the end of the graph, reads bytes that have been overwritten.
    """
    contents: dict[Block, object] = {plan.block(value): value for value in plan.graph.inputs}
    viewed: dict[Value, Value] = {}

    def holds(value: Value | Literal) -> bool:
        if isinstance(value, Literal) or not plan.block(value).bytes:
            return True
        return contents.get(plan.block(value)) is viewed.get(value, value)

    def claim(block: Block, writer: object) -> None:
        for other in [b for b in contents if b is not block and b.offset < block.end and block.offset < b.end]:
            del contents[other]
        contents[block] = writer

    for node in plan.graph.nodes:
        for operand in node.operands:
            assert holds(operand), f"{plan.graph.name}: {node.op.name} reads bytes that were overwritten"
        if node in plan.views:
            viewed[node.result] = viewed.get(node.operands[0], node.operands[0])
            continue
        check_apart(plan, node)
        if node in plan.scratch:
            claim(plan.blocks[plan.scratch[node]], node)
        for result in node.results:
            claim(plan.block(result), result)
    for name, output in plan.graph.outputs.items():
        assert holds(output), f"{plan.graph.name}: the bytes of the output {name} were overwritten"


def check_apart(plan: Plan, node: Node) -> None:
    """Checks that a node does not overwrite what it reads, except for results placed over an operand on purpose."""
    written = [plan.block(result) for result in node.results]
    written += [plan.blocks[plan.scratch[node]]] if node in plan.scratch else []
    for read in [plan.block(operand) for operand in node.operands if not isinstance(operand, Literal)]:
        for block in written:
            apart = block.end <= read.offset or read.end <= block.offset or not (block.bytes and read.bytes)
            in_place = block is read and (ELEMENTWISE in node.op.traits or node.op.name == "fused")
            assert apart or in_place, f"{node.op.name} overwrites what it reads"
