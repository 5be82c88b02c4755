"""Graphs and programs through target c, between guards, on any number of threads: see together.py."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compiler.driver import Compilation
from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays
from compiler.passes.pipeline import run_pipeline
from compiler.targets.target import find_target
from runtime.allowed import NATIVE_PROGRAMS
from runtime.native.program import NativeProgram
from runtime.program import BoundGraphs, Executable, aligned_zeros, load_functions
from tests.native.together import NAN, Together, together
from tests.programs import run_program

C = find_target("c")
THREADS = (1, 2, 3)  # three are more than the parts of some loops, and divide few sizes evenly


class NativeSteps:
    """A graph, with variables or without, as C. `together`: the libraries that it becomes part of.

    Raises UserError if it has an op that C has no code for.
    """

    def __init__(self, graph: Graph, batch: int, libraries: Together):
        self.graph, self.libraries = graph, libraries
        plans, variables = C.plan(run_pipeline({graph.name: graph}, C.pipeline), batch)
        self.plan = plans[0]
        source = C.generate("a test", plans, variables)
        executable = Executable(source, "<test>", self.plan.size, batch, C.name)
        arena = aligned_zeros(max(self.plan.size, 1))
        self.program = BoundGraphs(load_functions(executable, NATIVE_PROGRAMS), arena, batch)

    def __call__(self, inputs: Mapping[str, np.ndarray], batch: int, threads: int = 1, fill: int = NAN) -> Arrays:
        """Its results and the variables after it. Before, all bytes but variables and inputs are `fill`."""
        self.program.arena[:] = fill
        stored = self.program.variables()
        for name, view in {**stored, **self.program.inputs(self.graph.name, batch)}.items():
            view[...] = inputs[name]
        with self.libraries.threads(threads):
            results = self.program.run(self.graph.name, batch)
        return {name: np.array(array) for name, array in {**stored, **results}.items()}


def native_program(compiled: Compilation, libraries: Together) -> NativeProgram:
    """A program of target c whose graphs become part of libraries."""
    with together(libraries):
        return NativeProgram(compiled.executable, compiled.manifest)


def run_native(
    program: NativeProgram, libraries: Together, name: str, inputs: Arrays, batch: int, threads: int, fill: int = NAN
) -> Arrays:
    """Runs a graph of a program with all its variables given; before, all other bytes are `fill`."""
    program.arena[:] = fill
    for key, view in program.variables().items():
        view[...] = inputs[key]
    with libraries.threads(threads):
        return run_program(program, name, inputs, batch)
