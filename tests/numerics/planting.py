"""NaN planted into the result of a chosen op of generated code, and one step of training on random examples."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compiler.driver import Compilation, title_of
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.types import at_batch
from compiler.planning.memory import Plan
from compiler.targets.numpy.writer import NumpyWriter
from compiler.targets.target import find_target
from runtime.datasets.dataset import Dataset, Split
from runtime.program import LoadedProgram, Manifest
from runtime.training.captures import Capture
from runtime.training.progress import Reporter
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import Diverged, train

GRAPH = "train_step"
EXAMPLES = 4
Key = tuple[str, int]  # the name of an op, and its number among the ops of that name in the source


class Writing:
    """Counts the ops of a graph while its source is written, and overwrites the result of a chosen one."""

    def __init__(self, chosen: Key | None = None, value: str = "np.nan"):
        self.chosen, self.value = chosen, value
        self.nodes: dict[Key, Node] = {}
        self.active = False

    def begin(self, graph: str) -> None:
        self.active = graph == GRAPH
        if self.active:
            self.nodes = {}

    def lines(self, writer: NumpyWriter, node: Node) -> list[str]:
        if not self.active:
            return []
        name = node.op.name
        key = name, sum(other == name for other, _ in self.nodes)
        self.nodes[key] = node
        return [f"{writer.of[node.results[0]]}[...] = {self.value}"] if key == self.chosen else []


@contextmanager
def writing(writing: Writing) -> Iterator[Writing]:
    """While entered, all source is written with the planted value."""
    lines, statements = NumpyWriter.lines, NumpyWriter.statements

    def noting(self: NumpyWriter) -> list[str]:
        writing.begin(self.plan.graph.name)
        return lines(self)

    def planting(self: NumpyWriter, node: Node, arguments) -> list[str]:
        return [*statements(self, node, arguments), *writing.lines(self, node)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumpyWriter, "lines", noting)
        patch.setattr(NumpyWriter, "statements", planting)
        yield writing


def generated(compiled: Compilation) -> Compilation:
    """The program with newly generated source."""
    target = find_target("numpy")
    plans, variables = target.plan(compiled.optimized, compiled.executable.batch)
    source = target.generate(title_of(compiled.tree, compiled.model), plans, variables)
    return replace(compiled, executable=replace(compiled.executable, source=source))


def ops_that_count(compiled: Compilation, every: bool = False) -> list[Key]:
    """Ops that the loss or a variable depends on: all of them, or the middle one of each name."""
    target = find_target("numpy")
    plans, _ = target.plan(compiled.optimized, compiled.executable.batch)
    (plan,) = (plan for plan in plans if plan.graph.name == GRAPH)
    with writing(Writing()) as written:
        target.generate("", [plan], [])
    counting = nodes_that_count(plan)
    found: dict[str, list[Key]] = {}
    for key, node in written.nodes.items():
        if node in counting:
            found.setdefault(key[0], []).append(key)
    return [key for keys in found.values() for key in (keys if every else keys[len(keys) // 2 :][:1])]


def nodes_that_count(plan: Plan) -> set[Node]:
    """Nodes with float results that the loss or a variable depends on."""
    outputs = [value for name, value in plan.graph.outputs.items() if name == "loss" or "." in name]
    return counting(plan, plan.graph, outputs)


def counting(plan: Plan, graph: Graph, outputs: list[Value]) -> set[Node]:
    wanted, found = set(outputs), set()
    for node in reversed(graph.nodes):
        if not any(result in wanted and result.type.is_float for result in node.results):
            continue
        found.add(node)
        wanted.update(operand for operand in node.operands if operand.type.is_float)
        if "body" in node.attributes:
            body = plan.regions[node].plan.graph if node in plan.regions else node.body
            ends = [v for v, r in zip(body.outputs.values(), node.results, strict=True) if r in wanted]
            found |= counting(plan, body, ends)
    return found


# One step -------------------------------------------------------------------------------------------------------------


def random_data(manifest: Manifest, examples: int = EXAMPLES) -> Dataset:
    """Examples for a program compiled without a data set."""
    generator = np.random.default_rng(0)

    def array(spec) -> np.ndarray:
        shape = at_batch(tuple(spec.shape[1:]), 1)
        if spec.name in manifest.classes:
            return generator.integers(0, manifest.classes[spec.name], (examples, *shape)).astype(np.int32)
        return generator.random((examples, *shape), np.float32)

    split = Split({spec.name: array(spec) for spec in (*manifest.inputs, *manifest.targets)})
    return Dataset("random", split, split)


def diverging(compiled: Compilation, folder: Path, dataset: Dataset | None = None, checks: bool = True) -> Diverged:
    """Trains in a new folder until training stops because of a number that is not finite."""
    program = LoadedProgram(compiled.executable, compiled.manifest)
    run_folder = RunFolder.create("Model", "", folder)
    reporter = Reporter(quiet=True, stream=io.StringIO())
    data = dataset or random_data(compiled.manifest)
    with pytest.raises(Diverged) as caught:
        train(program, data, run_folder=run_folder, reporter=reporter, check_numerics=checks)
    return caught.value


def captured(compiled: Compilation, folder: Path, dataset: Dataset | None = None, checks: bool = True) -> Capture:
    capture = diverging(compiled, folder, dataset, checks).capture
    assert capture is not None
    return capture
