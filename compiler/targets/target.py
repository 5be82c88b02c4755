"""The record of a target for compiling: its passes, where its tensors live, how its source is written and explained.

Nothing else in the compiler asks which target it compiles for: what differs between targets is a field here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from compiler.ir.graph import Graph, Module, Node, Value
from compiler.passes.pipeline import Pass
from compiler.planning.memory import Placement, Plan
from compiler.planning.program import PlacedVariable, plan_module
from compiler.targets.registry import HOST, TARGETS
from compiler.targets.shared.regions import Region

Reason = Callable[[Node, Value, Node], str]  # (producer, value, reader) -> why they are not in one region


@dataclass(frozen=True)
class Target:
    """What code can be generated for.

    generate(title, plans, variables, ticks=None) -> source    `ticks` by graph: where it measures or checks itself
    check(module)                      raises UserError for regions that cannot run: IR text may hold anything
    reasons(graph, regions, in_scan) -> Reason    of a graph, or the body of a scan, with its regions inlined, and the
                                       nodes of each region
    """

    name: str
    pipeline: Sequence[Pass]
    placement: Placement
    generate: Callable[..., str]
    check: Callable[[Module], None]
    reasons: Callable[[Graph, Sequence[Region], bool], Reason]
    optional: Sequence[tuple[Pass, str]] = ()  # passes that run on request, each with the one before which it runs
    on_host: tuple[str, ...] = ()  # graphs that run on the host
    # (file, manifest, module, data, name) -> a script that trains without nnc; None if the target has none
    standalone: Callable[..., str] | None = None

    def plan(self, module: Module, batch: int) -> tuple[list[Plan], list[PlacedVariable]]:
        """Plans of all graphs that run on the target, and the variables with their offsets."""
        return plan_module(module, batch, self.placement, self.on_host)


def find_target(name: str = HOST) -> Target:
    """The target of a name; only its own code is imported."""
    return import_module(f"{TARGETS[name]}.target").TARGET
