"""The operations of a graph, and what generated source launches on a GPU, counted on a dummy device."""

from __future__ import annotations

import sys
from collections import Counter
from types import ModuleType
from typing import Any
from unittest import mock

from compiler.ir.graph import Graph
from compiler.ir.op import VIEW
from compiler.planning.memory import scan_length
from runtime.allowed import GPU_PROGRAMS
from runtime.cpu.kernels.basic import steps, view
from runtime.program import Executable, aligned_zeros, load_functions

KINDS = ("product", "convolution", "kernel", "copy")


def operations(graph: Graph, in_region: bool = False, in_regions_only: bool = False) -> int:
    """The number of operations in a run of a graph; those of a scan count at each step, views do not count."""
    total = 0
    for node in graph.nodes:
        if node.op.name == "scan":
            total += scan_length(node, 1) * operations(node.body, in_region, in_regions_only)
        elif node.op.name == "fused":
            total += operations(node.body, True, in_regions_only)
        elif VIEW not in node.op.traits:
            total += in_region or not in_regions_only
    return total


def count_launches(executable: Executable, graph: str) -> Counter[str]:
    """The launches of one run of a graph, by kind."""
    found: Counter[str] = Counter()

    class Kernel:
        """An ElementwiseKernel, or a RawKernel whose first argument is its text."""

        def __init__(self, text: str, *others: str, preamble: str = ""):
            self.kind = "convolution" if "products::" in text else "kernel"

        def __call__(self, *arguments: Any, **settings: Any) -> None:
            found[self.kind] += 1

    device = ModuleType("runtime.gpu.cuda")
    vars(device).update(
        ElementwiseKernel=Kernel,
        RawKernel=Kernel,
        copy=lambda out, source: found.update(["copy"]),
        matmul=lambda a, b, out: found.update(["product"]),
        together=lambda *functions: [function() for function in functions],
        steps=steps,
        view=view,
    )
    with mock.patch.dict(sys.modules, {"runtime.gpu.cuda": device}):
        functions = load_functions(executable, GPU_PROGRAMS)
    functions[graph](aligned_zeros(executable.arena_bytes), executable.batch)[0]()
    return found
