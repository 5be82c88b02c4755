"""Shared by several tests: the five models, small programs from text, and graphs run as generated code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from compiler.diagnostics import Diagnostics
from compiler.driver import Compilation, compile_tree, load_tree
from compiler.elaborate.library import with_imports
from compiler.ir.graph import Graph, Module
from compiler.ir.interpreter import Arrays
from compiler.ir.reader import read_module
from compiler.ir.types import NUMPY_NAMES, TensorType, at_batch
from compiler.language.parser import parse
from compiler.passes.pipeline import run_pipeline
from compiler.planning.memory import Plan, plan_graph
from compiler.targets.registry import TARGETS
from compiler.targets.target import find_target
from runtime.program import FIRST_EXAMPLE, Executable, LoadedProgram, aligned_zeros, load_functions

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("softmax", "mlp", "cnn", "separable_cnn", "bilstm")
TRAINED_GRAPHS = ("train_step", "evaluate", "predict")
BATCH = 3
NUMPY = find_target("numpy")
PIPELINES = {name: find_target(name).pipeline for name in TARGETS}
NUMPY_PIPELINE = NUMPY.pipeline


@cache
def compiled_model(name: str, target: str = "numpy") -> Compilation:
    """One of the five models, compiled once per test session; must not be modified."""
    return compile_tree(load_tree(ROOT / "models" / f"{name}.nn"), target=target)


def compile_text(text: str, file: str = "test.nn", target: str = "numpy") -> Compilation:
    """A program from text; raises UserError with all its mistakes."""
    diagnostics = Diagnostics()
    tree = with_imports(parse(text, file, diagnostics), diagnostics)
    return compile_tree(tree, diagnostics=diagnostics, target=target)


def read_graph(text: str) -> Graph:
    """The only graph of IR text."""
    (graph,) = read_module(text).values()
    return graph


def values_for(graph: Graph, batch: int, seed: int = 0) -> Arrays:
    """Values for all inputs of a graph: floats around zero, integers below ten; callers may replace the variables."""
    generator = np.random.default_rng(seed)
    result: Arrays = {}
    for value in graph.inputs:
        shape = at_batch(value.type.shape, batch)
        if value.type.is_float:
            result[value.name] = generator.normal(0.0, 0.5, shape).astype(NUMPY_NAMES[value.type.dtype])
        else:
            result[value.name] = generator.integers(0, 10, shape).astype(NUMPY_NAMES[value.type.dtype])
    return result


def initialized(compiled: Compilation, seed: int = 0) -> LoadedProgram:
    program = LoadedProgram(compiled.executable, compiled.manifest)
    program.initialize(seed)
    return program


def run_program(program: LoadedProgram, name: str, inputs: Mapping[str, np.ndarray], batch: int) -> Arrays:
    """Runs a graph of a program once; the outputs and the variables after it, as copies."""
    given = {FIRST_EXAMPLE: np.array(0), **inputs}  # the first batch of the data
    for key, view in program.inputs(name, batch).items():
        view[...] = given[key]
    outputs = program.run(name, batch)
    return {key: np.array(array) for key, array in {**program.variables(), **outputs}.items()}


def run_graph(graph: Graph, inputs: Mapping[str, np.ndarray], batch: int, poison: bool = False) -> Arrays:
    """Plans, generates and runs a single graph without variables as float32 NumPy code, with the target's passes."""
    optimized = optimize({graph.name: graph})[graph.name]
    plan = plan_graph(optimized, batch, 0, {}, NUMPY.placement)
    run, views, outputs = bind(plan, batch, poison)
    for name, view in views.items():
        view[...] = inputs[name]
    with np.errstate(all="ignore"):
        run()
    return {name: np.array(array) for name, array in outputs.items()}


def optimize(module: Module) -> Module:
    return run_pipeline(module, NUMPY_PIPELINE)


def bind(plan: Plan, batch: int, poison: bool):
    source = NUMPY.generate("a test", [plan], [])
    functions = load_functions(Executable(source, "<test>", plan.size, batch, NUMPY.name))
    arena = aligned_zeros(max(plan.size, 1))
    if poison:
        arena[:] = 0xFF  # every float of these bytes is NaN
    return functions[plan.graph.name](arena, batch)


def run_step(graph: Graph, inputs: Mapping[str, np.ndarray], batch: int, fill: int = 0) -> Arrays:
    """Runs a single graph with variables as float32 NumPy code; its results and the variables after it.

    All bytes hold `fill` before the variables and inputs are set; 0xFF is NaN in every float.
    """
    plans, variables = plan_step(graph, batch)
    source = NUMPY.generate("a test", plans, variables)
    functions = load_functions(Executable(source, "<test>", plans[0].size, batch, NUMPY.name))
    arena = aligned_zeros(plans[0].size)
    arena[:] = fill
    _, stored, _ = functions["variables"](arena, batch)
    run, views, results = functions[graph.name](arena, batch)
    for name, view in {**stored, **views}.items():
        view[...] = inputs[name]
    with np.errstate(all="ignore"):
        run()
    return {name: np.array(array) for name, array in {**stored, **results}.items()}


def plan_step(graph: Graph, batch: int) -> tuple[list[Plan], list[tuple[str, TensorType, int]]]:
    """The plan of a single graph after all passes, and its variables with their offsets."""
    return NUMPY.plan(optimize({graph.name: graph}), batch)
