"""The results of a module over a few runs of its graphs, in the float64 interpreter and as generated NumPy code.

A trajectory is a list of runs: `init` and three training steps of a model, then evaluation and prediction; a single
graph runs at two batch sizes. Variables keep their values from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np

from compiler.ir import interpreter
from compiler.ir.graph import VARIABLES, Graph, Module, Node, Value
from compiler.ir.interpreter import Arrays, interpret
from compiler.ir.op import VIEW
from compiler.ir.types import NUMPY_NAMES, at_batch
from compiler.ops.ranges import index_limits
from compiler.passes.dead_code import remove_dead_code
from compiler.planning.manifest import variable_types
from compiler.targets.target import find_target
from runtime.errors import IndexOutside
from runtime.program import CHECK, INFERENCE, PREPARE, Executable, LoadedProgram, Manifest
from tests.fuzz.drafts import BATCH
from tests.liveness import check_liveness

STEPS = 3
FAILED: Arrays = {"an index is outside its table": np.array(True)}  # in place of the results of a run
# These ops keep the elements of a value, or some of them, so that limits on indices propagate through them.
MOVING = ("reshape", "transpose", "broadcast", "slice", "flip", "copy", "stop_gradient", "concat", "cast", "fused")
# Ops that do not round in float32 if their operands are exact.
EXACT = {
    "concat", "pad", "gather", "select", "max", "min", "clip", "neg", "abs", "sign", "floor", "cast", "reduce_max",
    "max_pool2d", "max_pool2d_with_index", "patches", "random", "extent", "scan", "fused", "copy", "stop_gradient",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    graph: str
    batch: int
    inputs: Mapping[str, np.ndarray]  # all but variables


@dataclass(frozen=True)
class Trajectory:
    runs: tuple[Run, ...]
    variables: Mapping[str, np.ndarray]  # before the first run


def trajectory(module: Module, seed: int) -> Trajectory:
    """The runs of a module, with values for its inputs that a seed determines."""
    generator = np.random.default_rng(seed)
    if "train_step" in module and "init" in module:
        plan = [("init", 1), *[("train_step", BATCH)] * (STEPS - 1), ("train_step", 2), ("evaluate", BATCH)]
        plan += [("predict", 1)]
    else:
        plan = [(name, batch) for name in module for batch in (BATCH, *((BATCH, 2) if name == "train_step" else (1,)))]
    variables = [v for g in module.values() for v in g.of_kind(*VARIABLES)]
    ranges = {value.name: rows for graph in module.values() for value, rows in index_ranges(graph).items()}
    for name, rows in index_limits(module).items():  # data are checked against these
        ranges[name] = min(rows, ranges.get(name, rows))
    first = {v.name: draw(generator, v, ranges, 1) for v in dict.fromkeys(variables)}
    first |= {"seed": np.array(seed % 1000)} | {v.name: np.array(0) for v in variables if v.name == "step"}
    runs = []
    for name, batch in plan:
        inputs = [value for value in module[name].inputs if value.kind not in VARIABLES]
        runs.append(Run(name, batch, {value.name: draw(generator, value, ranges, batch) for value in inputs}))
    return Trajectory(tuple(runs), first)


def draw(generator: np.random.Generator, value: Value, ranges: Mapping[str, int], batch: int) -> np.ndarray:
    """Floats in ±2 but away from 0, exact in float32; small integers, within range if they are indices."""
    shape, type = at_batch(value.type.shape, batch), value.type
    if type.is_float:
        found = generator.uniform(0.06, 2.0, shape) * generator.choice([-1.0, 1.0], shape)
        return np.asarray(found, np.float32).astype(np.float64)
    if type.dtype == "bool":
        return np.asarray(generator.random(shape) < 0.5)
    low, high = (0, max(1, ranges[value.name])) if value.name in ranges else (0 if type.dtype == "u8" else -3, 7)
    if value.kind in ("target", "counter", "place") and value.name not in ranges:
        low = 0
    return np.asarray(generator.integers(low, high, shape)).astype(NUMPY_NAMES[type.dtype])


def index_ranges(graph: Graph, known: Mapping[Value, int] | None = None) -> dict[Value, int]:
    """For inputs that are used as indices, also in bodies, the number that they must stay below."""
    limits: dict[Value, int] = dict(known or {})

    def lower(value: Value, rows: object) -> None:
        if isinstance(rows, int):
            limits[value] = min(limits.get(value, rows), rows)

    for node in reversed(graph.nodes):
        name = node.op.name
        if name == "gather":
            rows = node.operands[0].type.shape[0]
            lower(node.operands[1], rows if isinstance(rows, int) else 1)
        elif name in ("scatter_add", "check_index"):
            lower(node.operands[0], node.attributes["size"])
        elif name in ("scan", "fused"):
            inner = index_ranges(node.body)
            for operand, value in zip(node.operands, node.body.inputs, strict=True):
                lower(operand, inner.get(value))
        elif name in MOVING:
            for operand in node.operands:
                lower(operand, limits.get(node.results[0]))
    return {value: limits[value] for value in graph.inputs if value in limits}


# The interpreter ------------------------------------------------------------------------------------------------------


def interpreted(module: Module, path: Trajectory) -> list[Arrays]:
    """The outputs of every run in float64, with `prepare` before inference if the module has it.

    A run in which an index leaves its table is the last one.
    """
    variables: Arrays = {name: np.array(value) for name, value in path.variables.items()}
    found = []
    with np.errstate(all="ignore"):
        for run in path.runs:
            graph = module[run.graph]
            try:
                folded = interpret(module[PREPARE], variables) if PREPARE in module and run.graph in INFERENCE else {}
                outputs = interpret_used(graph, {**variables, **folded, **run.inputs}, run.batch)
            except IndexOutside:
                found.append(FAILED)
                break
            if any(name.startswith(CHECK) and code for name, code in outputs.items()):
                found.append(FAILED)
                break
            found.append(outputs)
            variables |= {name: value for name, value in outputs.items() if name in variables or run.graph == "init"}
    return found


def interpret_used(graph: Graph, inputs: Mapping[str, np.ndarray], batch: int) -> Arrays:
    """The outputs; an index that no output depends on need not be in its table."""
    try:
        return interpret(graph, inputs, batch)
    except IndexOutside:
        return interpret(remove_dead_code(graph), inputs, batch)


def interpreted_with_other_indices(module: Module, path: Trajectory, seed: int) -> list[Arrays]:
    """The same with random indices inside of the table instead of those outside."""
    generator, evaluate = np.random.default_rng(seed), interpreter.evaluate

    def inside(node: Node, operands: list[np.ndarray], batch: int) -> list[np.ndarray]:
        if node.op.name != "check_index":
            return evaluate(node, operands, batch)
        (index,), size = operands, node.attributes["size"]
        others = generator.integers(0, size, np.shape(index)).astype(index.dtype)
        return [np.where((index < 0) | (index >= size), others, index)]

    with mock.patch.object(interpreter, "evaluate", inside):
        return interpreted(module, path)


@contextmanager
def noise(seed: int, size: float) -> Iterator[None]:
    """Adds relative noise of up to `size` to the interpreter's results of every node that rounds."""
    generator, evaluate = np.random.default_rng(seed), interpreter.evaluate

    def noisy(node: Node, operands: list[np.ndarray], batch: int) -> list[np.ndarray]:
        results = evaluate(node, operands, batch)
        if node.op.name in EXACT or VIEW in node.op.traits:
            return results
        return [
            x * (1.0 + generator.uniform(-size, size, np.shape(x))) if np.asarray(x).dtype.kind == "f" else x
            for x in results
        ]

    with mock.patch.object(interpreter, "evaluate", noisy):
        yield


# Generated code -------------------------------------------------------------------------------------------------------


def generated(module: Module, path: Trajectory) -> list[Arrays]:
    """The same from generated NumPy code of an optimized module; all bytes but the variables are NaN at first."""
    target = find_target("numpy")
    plans, variables = target.plan(module, BATCH)
    for plan in plans:
        check_liveness(plan)
    source = target.generate("a fuzzed program", plans, variables)
    executable = Executable(source, "<fuzz>", max(plan.size for plan in plans), BATCH, target.name)
    program = LoadedProgram(executable, Manifest("Fuzz", (), (), (), ()))
    program.arena[:] = 0xFF
    stored = program.variables()
    for name, value in path.variables.items():
        if name in stored:
            stored[name][...] = value
    found = []
    with np.errstate(all="ignore"):
        for run in path.runs:
            views = program.inputs(run.graph, run.batch)
            for name, value in run.inputs.items():
                views[name][...] = value
            try:
                outputs = {name: np.array(x) for name, x in program.run(run.graph, run.batch).items()}
            except IndexOutside:
                found.append(FAILED)
                break
            changed = {name: np.array(stored[name]) for name in module[run.graph].outputs if name in stored}
            found.append({**changed, **outputs})
    return found


def kinds_of(module: Module) -> set[str]:
    """The names of all variables."""
    return set(variable_types(module))
