"""What generated source launches on a GPU, counted by running it on a device that does nothing."""

from __future__ import annotations

import sys
from collections import Counter
from types import ModuleType
from typing import Any
from unittest import mock

from runtime.cpu.kernels.basic import steps, view
from runtime.program import Executable, aligned_zeros, load_functions

KINDS = ("product", "convolution", "kernel", "copy")


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
        functions = load_functions(executable)
    functions[graph](aligned_zeros(executable.arena_bytes), executable.batch)[0]()
    return found
