"""A memory plan, checked by following which tensor last wrote each byte range; it shares nothing with the planner."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.graph import Literal
from compiler.memory import Plan
from compiler.packing import Block


def check_plans(plans: Sequence[Plan]) -> None:
    """Raises AssertionError where a node, or the end of a graph, reads bytes that something else was written over."""
    for plan in plans:
        check_plan(plan)


def check_plan(plan: Plan) -> None:
    written: dict[Block, object] = {plan.block(value): value for value in plan.graph.inputs}

    def claim(block: Block, writer: object) -> None:
        for other in [b for b in written if b is not block and b.offset < block.end and block.offset < b.end]:
            del written[other]
        written[block] = writer

    for node in plan.graph.nodes:
        for operand in node.operands:
            if not isinstance(operand, Literal) and plan.block(operand).bytes:
                assert plan.block(operand) in written, f"{plan.graph.name}: {node.op.name} reads what was written over"
        if node in plan.scratch:
            claim(plan.blocks[plan.scratch[node]], node)
        for result in node.results if node not in plan.views else []:
            claim(plan.block(result), result)
    for name, output in plan.graph.outputs.items():
        if not isinstance(output, Literal) and plan.block(output).bytes:
            assert plan.block(output) in written, f"{plan.graph.name}: the output {name} was written over"
