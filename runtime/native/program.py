"""Compiled programs in C: their graphs work on main memory, so arrays are passed in and read as in NumPy programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runtime.allowed import NATIVE_PROGRAMS
from runtime.native.compilers import vector_features
from runtime.native.library import find_compiler
from runtime.native.threads import threads
from runtime.program import Bound, IndexCheck, SplitProgram


class NativeProgram(SplitProgram):
    """A compiled program that is ready to run, or whose graphs are still being compiled in the background."""

    allowed = NATIVE_PROGRAMS

    def conditions(self) -> dict[str, Any]:
        """Also the compiler, its flags, the processor with the features that matter, and the number of threads."""
        compiler = find_compiler()[0]
        return super().conditions() | {
            "threads": threads(),
            "compiler": f"{compiler.name}: {compiler.version}",
            "flags": [*compiler.flags],
            "processor": vector_features(),
        }

    def views(self, graph: str, batch: int) -> Bound:
        """As for NumPy: `run` raises IndexOutside for an index outside its table, and no result is a check."""
        known = self.bound.get((graph, batch))
        if known is None:
            run, inputs, outputs = super().views(graph, batch)
            checks = self.manifest.checks
            codes = {name: outputs[name] for name in outputs if name in checks}
            results = {name: view for name, view in outputs.items() if name not in checks}
            run = looked_after(run, codes, checks) if codes else run
            known = self.bound[graph, batch] = run, inputs, results
        return known


def looked_after(
    run: Callable[[], None], codes: Mapping[str, np.ndarray], checks: Mapping[str, IndexCheck]
) -> Callable[[], None]:
    """A function that runs a graph and raises IndexOutside if one of its checks found an index."""

    def run_and_look() -> None:
        run()
        for name, view in codes.items():
            if code := view.item():
                raise checks[name].error(code)

    return run_and_look
