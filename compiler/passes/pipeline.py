"""The passes, in the order they run, each with its reason. The verifier runs after every one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compiler.ir.graph import Graph, Module
from compiler.ir.verifier import verify_graph
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.convolution_to_product import convolutions_to_products
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.materialize import materialize_outputs
from compiler.passes.scan_hoisting import hoist_from_scans
from compiler.passes.scans_together import bring_scans_together


@dataclass(frozen=True)
class Pass:
    """A function from graph to graph that keeps outputs and gradients."""

    name: str
    run: Callable[[Graph], Graph]


NUMPY_PIPELINE = (
    Pass("scan-hoisting", hoist_from_scans),  # first: what leaves a body is then treated like everything else
    Pass("dead-code", remove_dead_code),  # autodiff leaves gradients that nobody asked for
    Pass("convolution-to-product", convolutions_to_products),  # NumPy has products, not convolutions
    Pass("common-subexpressions", merge_common_subexpressions),  # forward and backward share patches; schedules repeat
    Pass("scans-together", bring_scans_together),  # the order is final but for copies
    Pass("materialize", materialize_outputs),  # last: what the memory plan relies on
)


def run_pipeline(module: Module, passes: tuple[Pass, ...] = NUMPY_PIPELINE) -> Module:
    """A new module; raises VerificationError naming the pass that broke the IR."""
    result = dict(module)
    for each in passes:
        for name, graph in result.items():
            result[name] = each.run(graph)
            verify_graph(result[name], each.name)
    return result
