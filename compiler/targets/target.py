"""The record of a target for compiling: its passes, memory placement, code generation and explanations.

Nothing else in the compiler asks which target it compiles for: all differences between targets are fields here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from compiler.diagnostics import Note, UserError
from compiler.ir.graph import Graph, Module, Node, Origin, Value
from compiler.ir.types import TypeRuleError
from compiler.passes.pipeline import Pass
from compiler.planning.allocations import Allocated
from compiler.planning.memory import Placement, Plan
from compiler.planning.program import PlacedVariable, plan_module
from compiler.targets.registry import HOST, TARGETS
from compiler.targets.shared.names import heading
from compiler.targets.shared.regions import Region

Reason = Callable[[Node, Value, Node], str]  # (producer, value, reader) -> why they are not fused


@dataclass(frozen=True)
class Target:
    """A target for code generation.

    generate(title, plans, variables, ticks=None) -> source    `ticks` by graph: where the source measures or checks
    check(module)                      raises UserError for regions that cannot run, as IR text may contain
    reasons(graph, regions, in_scan) -> Reason    for a graph, or the body of a scan, with its regions inlined, and the
                                       nodes of each region
    """

    name: str
    pipeline: Sequence[Pass]
    placement: Placement
    generate: Callable[..., str]
    check: Callable[[Module], None]
    reasons: Callable[[Graph, Sequence[Region], bool], Reason]
    optional: Sequence[tuple[Pass, str]] = ()  # passes that run on request, each with the pass that follows it
    # (node, batch) -> bytes that its code allocates outside of the arena
    allocated: Allocated = lambda node, batch: 0
    workspace: Callable[[str], int] = lambda source: 0  # bytes of each thread that a source needs outside of the arena
    heading: Callable[[Origin | None], str] = heading  # the line above the code of a place in the model
    graph_begins: str = "def bind_{}("  # the line of the source where the code of a graph begins
    on_host: tuple[str, ...] = ()  # names of graphs that run on the host
    # (file, manifest, module, data, name, about, executable, hash of the program) -> the files, by name, of a program
    # that trains without nnc; None if not supported
    standalone: Callable[..., Mapping[str, bytes]] | None = None

    def plan(self, module: Module, batch: int) -> tuple[list[Plan], list[PlacedVariable]]:
        """Plans of all graphs that run on the target, and the variables with their offsets.

        Raises UserError for a batch so large that a buffer would exceed the limits of tensors.
        """
        try:
            return plan_module(module, batch, self.placement, self.on_host)
        except TypeRuleError as error:  # of a buffer: at a smaller batch all tensors have valid types
            raise UserError.plain(
                f"batch {batch} is too large: a buffer of the step would exceed what a tensor may have",
                expected=error.expected,
                found=error.found,
                notes=[Note("choose a smaller --batch")],
            ) from error


def find_target(name: str = HOST) -> Target:
    """The target with this name; imports only the code of this target."""
    return import_module(f"{TARGETS[name]}.target").TARGET
