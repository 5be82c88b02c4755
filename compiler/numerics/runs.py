"""A captured step, run again in three ways while every op is inspected:

- `fused`: the same code that training runs, with inspection of the numbers between statements, also inside of regions
  and scans, tile by tile and step by step. Inspection does not change any bit.
- `unfused`: generated code without the passes that join ops.
- `float64`: the interpreter, on the graph after differentiation, before any pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from compiler.driver import Compilation, title_of
from compiler.ir.graph import Node
from compiler.ir.interpreter import Arrays, Evaluate, as_reference, evaluate, run
from compiler.ir.op import LOOP
from compiler.numerics.blame import Trace
from compiler.ops.control import scan
from compiler.passes.pipeline import Pass
from compiler.targets.shared.writer import Ticks
from compiler.targets.target import find_target
from runtime.program import LoadedProgram
from runtime.training.captures import Capture, StepResult
from runtime.training.numerics import Probe, Range, range_of, ranges_of, selected_ranges

JOINING = ("fusion", "fold-parameters", "sums-of-products", "scans-together")  # passes that join ops


@dataclass(frozen=True)
class Run:
    """One of these runs: its trace, its result, and the name it is shown with."""

    name: str
    trace: Trace
    found: StepResult


def without_joining(passes: Sequence[Pass]) -> tuple[Pass, ...]:
    return tuple(each for each in passes if each.name not in JOINING)


# Generated code -------------------------------------------------------------------------------------------------------


def run_generated(name: str, compiled: Compilation, capture: Capture) -> Run:
    """Runs the step in generated code that records the ranges of numbers of each op."""
    nodes: list[Node] = []
    target = find_target(compiled.executable.target)
    plans, variables = target.plan(compiled.optimized, compiled.executable.batch)
    title = title_of(compiled.tree, compiled.model)
    source = target.generate(title, plans, variables, {capture.graph: Ticks(probed=nodes)})
    probed = replace(compiled.executable, source=source, name=f"{compiled.executable.name} probed")
    program = LoadedProgram(probed, compiled.manifest)
    (plan,) = (plan for plan in plans if plan.graph.name == capture.graph)
    trace = Trace(plan.graph, len(capture.indices), {}, plan.regions)
    inputs, found, outputs = observe(program, capture)
    trace.inputs, trace.outputs = inputs, outputs
    probe: Probe = program.views(capture.graph, len(capture.indices))[0].__globals__["probe"]
    in_tiles = {node for region in plan.regions.values() for node in region.plan.graph.nodes}
    for number, operands, results in probe.records:
        (trace.add_tile if nodes[number] in in_tiles else trace.add)(nodes[number], operands, results)
    return Run(name, trace, found)


def observe(program: LoadedProgram, capture: Capture) -> tuple[dict[str, Range], StepResult, dict[str, Range]]:
    """Runs the step; returns the ranges of its inputs, its result, and the ranges of loss and variables after it."""
    inputs = {name: range_of(array) for name, array in {**capture.before, **capture.inputs}.items()}
    found = capture.run(program)
    outputs = {"loss": range_of(float.fromhex(found.loss))}
    if capture.graph == "train_step":
        outputs |= {name: range_of(array) for name, array in program.variables().items() if array.dtype.kind == "f"}
    return inputs, found, outputs


# The interpreter ------------------------------------------------------------------------------------------------------


def run_in_float64(name: str, compiled: Compilation, capture: Capture) -> Run:
    """Runs the step in the interpreter, on the graph before any pass."""
    graph, batch = compiled.module[capture.graph], len(capture.indices)
    given = {**capture.before, **capture.inputs}
    trace = Trace(graph, batch, {value.name: range_of(given[value.name]) for value in graph.inputs})
    with np.errstate(all="ignore"):
        arrays = [as_reference(given[value.name], value.type, batch) for value in graph.inputs]
        results = dict(zip(graph.outputs, run(graph, arrays, batch, recorder(trace)), strict=True))
    floats = {each: array for each, array in results.items() if each == "loss" or each in capture.before}
    trace.outputs = {each: range_of(array) for each, array in floats.items() if array.dtype.kind == "f"}
    return Run(name, trace, StepResult.of(results["loss"].item(), {}))


def recorder(trace: Trace) -> Evaluate:
    """Evaluates ops like the interpreter, and records them, those in the bodies of scans too."""

    def record(node: Node, operands: list[np.ndarray], batch: int) -> Sequence[np.ndarray]:
        if LOOP in node.op.traits:
            return scan(*operands, **node.attributes, batch=batch, run=partial(run, evaluate_node=record))
        seen = (selected_ranges if node.op.name == "select" else ranges_of)(*operands)
        results = evaluate(node, operands, batch)
        trace.add(node, seen, ranges_of(*results))
        return results

    return record


def fitting(capture: Capture, compiled: Compilation) -> str:
    """What part of a capture does not fit the program; empty if all of it fits."""
    graph, batch = compiled.module.get(capture.graph), len(capture.indices)
    if graph is None or not 1 <= batch <= compiled.executable.batch:
        return f"graph {capture.graph}, batch {batch}"
    program = LoadedProgram(compiled.executable, compiled.manifest)
    wanted: Mapping[str, Arrays] = {"variables": program.variables(), "inputs": program.inputs(capture.graph, batch)}
    for (kind, views), given in zip(wanted.items(), (capture.before, capture.inputs), strict=True):
        expected = {name: (view.dtype.name, view.shape) for name, view in views.items()}
        found = {name: (array.dtype.name, array.shape) for name, array in given.items()}
        for name in (*expected, *found):
            if expected.get(name) != found.get(name):
                return f"{kind}: {name}"
    for name, count in compiled.manifest.classes.items():
        if name in capture.inputs and not ((given := capture.inputs[name]) >= 0).all() & (given < count).all():
            return f"inputs: {name}, whose values must be from 0 to {count - 1}"
    return ""
