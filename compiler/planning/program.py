"""The memory plan of a program: variables, which all graphs share, followed by each graph's tensors."""

from __future__ import annotations

from collections.abc import Collection

from compiler.ir.graph import Module
from compiler.ir.types import TensorType
from compiler.planning.manifest import variable_types
from compiler.planning.memory import Placement, Plan, plan_graph
from compiler.planning.packing import aligned
from runtime.program import INFERENCE, PREPARE

PlacedVariable = tuple[str, TensorType, int]  # with its offset in the arena


def plan_module(
    module: Module, batch: int, placement: Placement, left_out: Collection[str] = ()
) -> tuple[list[Plan], list[PlacedVariable]]:
    """Plans of all graphs except those left out, and the variables.

    Variables come first, at fixed offsets; the graphs share the bytes after them, since only one runs at a time. But
    `prepare` may run when the inputs of another graph are already filled, so it is placed after those graphs.
    """
    variables: list[PlacedVariable] = []
    offset = 0
    for name, type in variable_types(module).items():
        variables.append((name, type, offset))
        offset += aligned(type.bytes_at(1))
    placed = {name: at for name, _, at in variables}
    plans: dict[str, Plan] = {}
    here = [(name, graph) for name, graph in module.items() if name not in left_out]
    for name, graph in sorted(here, key=lambda item: item[0] == PREPARE):
        base = max((plans[each].size for each in INFERENCE if each in plans and name == PREPARE), default=offset)
        plans[name] = plan_graph(graph, batch, base, placed, placement)
    return list(plans.values()), variables
