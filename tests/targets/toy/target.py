"""The record of the toy target: two passes, a placement that shares nothing, and a writer of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.op import ELEMENTWISE
from compiler.ir.printer import print_graph
from compiler.passes.materialize import materialize_outputs
from compiler.passes.pipeline import Pass
from compiler.passes.rewriting import inside_scans
from compiler.planning.memory import Placement, Plan, Planner
from compiler.planning.program import PlacedVariable
from compiler.planning.strides import Order, Strides, view_strides
from compiler.targets.shared.names import comment
from compiler.targets.shared.passes import SIMPLIFYING
from compiler.targets.shared.regions import Region, body_of, find_regions, with_regions, without_regions
from compiler.targets.shared.writer import GraphWriter, Ticks, functions_of
from compiler.targets.target import Reason, Target


def fuse(graph: Graph) -> Graph:
    """Neighbours that are elementwise become a region."""
    graph = inside_scans(without_regions(graph), fuse)
    return with_regions(graph, find_regions(graph.nodes, joins), step=lambda region: 0)


def joins(source: Node, value: Value, reader: Node) -> bool:
    return ELEMENTWISE in source.op.traits and ELEMENTWISE in reader.op.traits


def reasons(graph: Graph, regions: Sequence[Region], in_scan: bool) -> Reason:
    return lambda source, value, reader: "a path between them" if joins(source, value, reader) else "not elementwise"


def natural_order(node: Node, index: int, strides: Mapping[Value, Strides]) -> Order:
    return tuple(range(node.results[index].type.rank))


def view(node: Node, strides: Strides, readers: Sequence[Node | None]) -> Strides | None:
    return view_strides(node, strides)


def place_region(planner: Planner, node: Node, replaced: Mapping[Value, Value], position: int) -> None:
    """Each result in a block to itself."""
    for index, result in enumerate(node.results):
        order = natural_order(node, index, planner.strides)
        planner.place_result(node, result, order, None, position, lambda node, result, value: False)


class ToyWriter(GraphWriter):
    STEPS, TOGETHER = "kernels.steps", "kernels.together"

    def __init__(self, kernels: list[str], plan: Plan, variables: dict[str, int], ticks: Ticks):
        super().__init__(plan, variables, ticks=ticks)
        self.kernels = kernels

    def copy(self, out: str, source: str) -> str:
        return f"np.copyto({out}, {source})"

    def statements(self, node: Node, arguments: Sequence[str]) -> list[str]:
        given = [text for text, value in zip(arguments, node.operands, strict=True) if not isinstance(value, Literal)]
        return [self.call(node, body_of(node), given)]

    def write_region(self, node: Node, note: str, depth: int) -> str:
        self.write(f"{self.call(node, node.body, [self.show(value) for value in node.operands])}  {note}", depth)
        return f"interpreted_{len(self.kernels)}"

    def call(self, node: Node, body: Graph, arguments: Sequence[str]) -> str:
        """Defines a kernel, and calls it."""
        self.kernels.append(f"interpreted_{len(self.kernels) + 1} = Interpreted({print_graph(body)!r})")
        results = [self.of[result] for result in node.results]
        return f"interpreted_{len(self.kernels)}({items(arguments)}, {items(results)}, B)"


def items(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def generate(
    title: str,
    plans: Sequence[Plan],
    variables: Sequence[PlacedVariable],
    ticks: Mapping[str, Ticks] | None = None,
) -> str:
    kernels: list[str] = []
    functions = functions_of(partial(ToyWriter, kernels), plans, variables, ticks)
    header = ["import numpy as np", "", "from runtime.cpu import kernels", "from runtime.cpu.kernels import view"]
    header += ["from runtime.cpu.profiler import Clock", "", "clock = Clock()"] if ticks else []
    header += ["from tests.targets.toy.interpreted import Interpreted", ""]
    return "\n".join([comment(title), "", *header, *kernels, *functions]) + "\n"


PIPELINE = (
    *SIMPLIFYING,
    Pass("toy-fusion", fuse),
    Pass("materialize", materialize_outputs, required="the memory plan relies on it"),
)
TARGET = Target(
    "toy",
    PIPELINE,
    Placement(lambda node: None, natural_order, view, place_region),
    generate,
    check=lambda module: None,
    reasons=reasons,
)
