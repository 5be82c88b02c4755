"""NumPy source for planned graphs: functions as in shared/writer.py, with statements like these.

kernels.matmul(image, dense_1_w, out=v0)             # %0: f32[B,512] = matmul(%image, %dense_1.w)
run_tiles(region_1, region_1_tiles)                  # a region, whose tiles are divided among threads

def region_1_tile(lane, i):
    a = v0[:, i:i + 64]                              the parts of tensors for one tile, made once
    return a, …
def region_1(tiles):
    for a, … in tiles:                               run by each thread on its own tiles
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from compiler.ir.graph import Node, Value
from compiler.ir.printer import number
from compiler.planning.memory import Plan
from compiler.planning.program import PlacedVariable
from compiler.targets.numpy.division import SHARED, divided_axis
from compiler.targets.numpy.ops import EMITTERS, copy
from compiler.targets.numpy.tiles import TilePlan
from compiler.targets.shared.names import comment
from compiler.targets.shared.python_text import Emission
from compiler.targets.shared.writer import INDENT, START_CLOCK, GraphWriter, Ticks, functions_of

HEADER = (
    "import numpy as np",
    "",
    "from runtime.cpu import kernels",
    "from runtime.cpu.kernels import view",
    "from runtime.cpu.threads import run_tiles, tiles",
)


def generate(
    title: str, plans: Sequence[Plan], variables: Sequence[PlacedVariable], ticks: Mapping[str, Ticks] | None = None
) -> str:
    """The module's source. `variables`, with types and offsets, are for `bind_variables`; `ticks` are by graph."""
    header = [comment(title), "", *HEADER]
    if any(each.probed is not None for each in (ticks or {}).values()):
        imports = "from runtime.training.numerics import Probe, ranges_of, selected_ranges"
        header += [imports, "", "probe = Probe()"]
    elif ticks:
        header += ["from runtime.cpu.profiler import Clock", "", "clock = Clock()"]
    return "\n".join([*header, *functions_of(NumpyWriter, plans, variables, ticks)]) + "\n"


class NumpyWriter(GraphWriter):
    """Writes the function of one graph, and the functions of its regions."""

    STEPS, TOGETHER = "kernels.steps", "kernels.together"

    def copy(self, out: str, source: str) -> str:
        return copy(out, source)

    def statements(self, node: Node, arguments: Sequence[str]) -> list[str]:
        homes = [self.plan.owner[result] for result in node.results]
        same = frozenset(i for i, v in enumerate(node.operands) if self.plan.owner.get(v) in homes)
        outs = ", ".join(self.of[result] for result in node.results)
        return EMITTERS[node.op.name](Emission(node, arguments, outs, same, self.scratch(node)))

    def write_region(self, node: Node, note: str, depth: int) -> str:
        """Writes a region: a function that makes the views of one tile, and one that runs several tiles. Its name."""
        self.regions += 1
        name, planned = f"region_{self.regions}", self.plan.regions[node]
        assert isinstance(planned, TilePlan)
        tile, step = planned.tile, node.attributes["step"]
        scratch = self.plan.block(self.plan.scratch[node]).offset if planned.bytes_per_thread else 0
        lane = f"{scratch} + lane * {planned.bytes_per_thread}" if planned.bytes_per_thread else ""
        inner = NumpyWriter(planned.plan, {}, self.names, lane, Ticks(self.ticks.inside, probed=self.ticks.probed))
        for value, (index, axis) in zip(tile.graph.inputs, tile.operands, strict=True):
            inner.name_part(value, self.of[node.operands[index]], axis, step)
        for value, result in zip(tile.graph.outputs.values(), node.results, strict=True):
            inner.name_part(value, self.of[result], divided_axis(result.type), step)
        inner.write_nodes(tile.graph, number(tile.graph), f"{name}_", 0)
        used = set(re.findall(r"\w+", "\n".join(line.split("  #")[0] for line in inner.body)))
        views = ", ".join(view for line in inner.bound if (view := line.split(" = ")[0]) in used)
        self.functions += ["", f"def {name}_tile(lane, i):", *(INDENT + line for line in inner.bound)]
        self.functions += [f"{INDENT}return {views},", "", f"def {name}(tiles):"]
        self.functions += [INDENT + START_CLOCK] if self.ticks.inside is not None else []
        self.functions += [f"{INDENT}for {views}, in tiles:", *(INDENT * 2 + line for line in inner.body)]
        self.functions += ["", f"{name}_tiles = tiles({name}_tile, {tile.count}, {step})"]
        self.write(f"run_tiles({name}, {name}_tiles)  {note}", depth)
        self.last_heading = ""
        return name

    def name_part(self, value: Value, tensor: str, axis: int | None, step: int) -> None:
        """Names the part of a tensor that a tile works on."""
        if axis is None or axis == SHARED:
            self.of[value] = tensor
            return
        self.of[value] = self.names.fresh(f"{tensor}_part")
        colons = ":, " * axis if axis < value.type.rank - 1 else "..., " if axis else ""
        self.bound.append(f"{self.of[value]} = {tensor}[{colons}i : i + {step}]")
