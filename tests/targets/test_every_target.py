"""What holds for every target in the registry, and for a toy that is added by one line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from compiler.driver import Compilation, compile_tree
from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays, interpret
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.passes.pipeline import run_pass
from compiler.reports.explain_fusion import explain
from compiler.targets import registry
from compiler.targets.running import find_runtime
from compiler.targets.target import find_target
from runtime.allowed import checked_code
from runtime.program import METRICS
from tests.cli.running import nnc
from tests.liveness import check_liveness
from tests.programs import BATCH, TRAINED_GRAPHS, compile_text, run_program, values_for

TOY = ("toy", "tests.targets.toy")
NAMES = [*registry.TARGETS, TOY[0]]
RUNS_HERE = [name for name in NAMES if name != "cupy"]  # which needs a GPU: see tests/gpu
PROGRAMS = {
    "recurrent": """
model Sequences(x: f32[B, 5, 4]) { return x |> Bidirectional(LSTM(6)) |> Dense(3) }
train Sequences { loss = mean_squared_error; optimizer = Adam; batch = 4 }
""",
    "convolutional": """
model Images(x: f32[B, 9, 9, 2]) {
  return x |> Conv2D(4, 3) |> BatchNorm |> relu |> MaxPool2D(2) |> Flatten |> Dropout(0.2) |> Dense(3)
}
train Images { loss = mean_squared_error; optimizer = SGD(lr=0.1, momentum=0.9); batch = 4 }
""",
}
each_target = pytest.mark.parametrize("name", NAMES)
each_program = pytest.mark.parametrize("program", PROGRAMS)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy's row of the registry: all that a target needs outside of its folder."""
    monkeypatch.setitem(registry.TARGETS, *TOY)
    yield


@cache
def compiled(program: str, name: str) -> Compilation:
    return compile_tree(compile_text(PROGRAMS[program]).tree, target=name)


def inputs_for(graph: Graph) -> Arrays:
    """Values for the inputs; those of states are positive, since some are variances."""
    values, states = values_for(graph, BATCH), {value.name for value in graph.of_kind("state")}
    return {name: np.abs(array) if name in states else array for name, array in values.items()}


@each_target
def test_the_records_are_complete(name: str):
    target, runtime = find_target(name), find_runtime(name)
    assert target.name == name and any(each.required for each in target.pipeline)
    assert runtime.free_bytes and runtime.measure and runtime.device
    assert set(target.on_host) <= {"init", METRICS}


@each_program
@each_target
def test_every_pass_keeps_the_meaning_and_the_text(name: str, program: str):
    module = dict(compiled(program, name).module)
    given = {graph: inputs_for(module[graph]) for graph in TRAINED_GRAPHS}
    expected = {graph: interpret(module[graph], given[graph], BATCH) for graph in TRAINED_GRAPHS}
    for each in find_target(name).pipeline:
        module = run_pass(each, module)
        assert print_module(read_module(print_module(module))) == print_module(module)
    for graph, before in expected.items():
        prepared = interpret(module["prepare"], given[graph]) if "prepare" in module else {}
        after = interpret(module[graph], given[graph] | prepared, BATCH)
        for output, value in before.items():
            np.testing.assert_allclose(after[output], value, rtol=1e-10, atol=1e-11, err_msg=output)


@each_program
@each_target
def test_no_block_is_overwritten_while_it_is_read(name: str, program: str):
    for plan in compiled(program, name).plans:
        check_liveness(plan)


@each_program
@each_target
def test_source_is_allowed_and_always_the_same(name: str, program: str):
    first = compiled(program, name).executable
    checked_code(first.source, first.name, find_runtime(name).allowed)
    assert compile_tree(compiled(program, name).tree, target=name).executable.source == first.source


@each_program
@each_target
def test_regions_are_reported_as_they_run(name: str, program: str):
    for plan in compiled(program, name).plans:
        text = explain({plan.graph.name: plan.graph}, find_target(name))
        assert text.count("\n  region ") == sum(node.op.name == "fused" for node in plan.graph.walk())
    source = compiled(program, name).executable.source
    regions = sum(node.op.name == "fused" for plan in compiled(program, name).plans for node in plan.graph.walk())
    assert source.count(" = fused(") == regions


@each_program
@pytest.mark.parametrize("name", RUNS_HERE)
def test_a_step_is_what_the_interpreter_computes(name: str, program: str):
    found = compiled(program, name)
    running = find_runtime(name).load(found.executable, found.manifest, {})
    running.initialize(1)
    graph = found.module["train_step"]
    given = values_for(graph, BATCH)
    variables = {key: np.array(array) for key, array in running.variables().items()}
    results = run_program(running, "train_step", given, BATCH)
    for key, value in interpret(graph, given | variables, BATCH).items():
        np.testing.assert_allclose(results[key], value, rtol=1e-3, atol=1e-4, err_msg=key)


@each_target
def test_commands_take_the_target(name: str, tmp_path: Path):
    path = tmp_path / "m.nn"
    path.write_text(PROGRAMS["recurrent"])
    for command in ("emit", "plan", "explain-fusion", "annotate --no-time", "opt --list"):
        verb, *flags = command.split()
        result = nnc(verb, path, *flags, "--target", name)
        assert result.code == 0 and result.out, result.err


@pytest.mark.parametrize("name", RUNS_HERE)
def test_steps_are_measured(name: str, tmp_path: Path):
    path = tmp_path / "m.nn"
    path.write_text(PROGRAMS["convolutional"])
    result = nnc("profile", path, "--target", name, "--steps", "1")
    assert result.code == 0 and "ms  " in result.out, result.err
