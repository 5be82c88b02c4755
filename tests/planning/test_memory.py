"""The memory plan: checked by a separate liveness analysis, by poisoned bytes, and against its lower bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.cli.flags import TARGETS
from compiler.ir.graph import VARIABLES
from compiler.planning.memory import Plan, plan_graph
from compiler.planning.packing import ALIGNMENT, Block, assign_offsets
from compiler.planning.schedule import groups
from compiler.reports.plan_report import format_plan
from compiler.targets.numpy.target import PLACEMENT
from runtime.cpu.threads import LANES, Lanes
from runtime.program import LoadedProgram
from tests.delicate import DELICATE, delicate_graph
from tests.liveness import check_liveness
from tests.programs import (
    BATCH,
    MODELS,
    TRAINED_GRAPHS,
    compiled_model,
    initialized,
    plan_step,
    read_graph,
    run_program,
    values_for,
)

PLANS = [(model, name, target) for model in MODELS for name in TRAINED_GRAPHS for target in TARGETS]


def plan_of(model: str, name: str, target: str = "numpy") -> Plan:
    return next(plan for plan in compiled_model(model, target).plans if plan.graph.name == name)


@pytest.mark.parametrize(("model", "name", "target"), PLANS)
def test_no_block_is_written_while_it_holds_what_is_still_read(model: str, name: str, target: str):
    check_liveness(plan_of(model, name, target))


@pytest.mark.parametrize("name", DELICATE)
def test_no_block_of_a_delicate_graph_is_written_while_it_holds_what_is_still_read(name: str):
    (plan,), _ = plan_step(delicate_graph(name), BATCH)
    check_liveness(plan)


@pytest.mark.parametrize(("model", "name", "target"), PLANS)
def test_blocks_that_live_together_do_not_overlap(model: str, name: str, target: str):
    blocks = list(plan_of(model, name, target).blocks.values())
    assert all(block.offset % ALIGNMENT == 0 for block in blocks)
    for i, one in enumerate(blocks):
        for other in blocks[:i]:
            together = one.first <= other.last and other.first <= one.last
            assert not together or one.end <= other.offset or other.end <= one.offset or not (one.bytes and other.bytes)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_train_step_is_near_the_lower_bound(model: str, target: str):
    plan = plan_of(model, "train_step", target)
    planned = plan.size - plan.base
    assert plan.lower_bound <= planned <= 1.1 * plan.lower_bound
    assert planned < plan.naive


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_read_before_it_is_written(model: str):
    """If all bytes but variables and inputs are NaN before the step, the results are the same to the last bit."""
    compiled = compiled_model(model)
    results = []
    for fill in (0x00, 0xFF):
        program = initialized(compiled, seed=1)
        program.arena[plan_of(model, "train_step").base :] = fill
        inputs = values_for(compiled.module["train_step"], BATCH)
        results.append(run_program(program, "train_step", inputs, BATCH))
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


def test_new_values_of_variables_are_written_in_place_if_the_old_ones_are_not_needed():
    text = """
    graph train_step(%w: f32[4] param, %v: f32[4] state) {
      %0: f32[4] = mul(%v, 0.9)
      %1: f32[4] = sub(%w, %0)
      return v=%0, w=%1
    }"""
    plan = plan_graph(read_graph(text), 1, 256, {"w": 0, "v": 64}, PLACEMENT)
    names = {value.name: value for value in plan.graph.inputs}
    assert plan.owner[plan.graph.outputs["v"]] is names["v"]
    assert plan.owner[plan.graph.outputs["w"]] is names["w"]


def test_a_variable_that_is_read_later_is_not_overwritten():
    text = """
    graph train_step(%w: f32[4] param) {
      %0: f32[4] = mul(%w, 0.9)
      %1: f32[4] = sub(%w, 1.0)
      return w=%0, y=%1
    }"""
    plan = plan_graph(read_graph(text), 1, 256, {"w": 0}, PLACEMENT)
    assert plan.owner[plan.graph.outputs["w"]] is plan.graph.outputs["w"]


def test_a_variable_is_not_overwritten_through_its_own_transpose():
    text = """
    graph train_step(%w: f32[4,4] param) {
      %0: f32[4,4] = transpose(%w, permutation=[1,0])
      %1: f32[4,4] = add(%w, %0)
      return w=%1
    }"""
    plan = plan_graph(read_graph(text), 1, 256, {"w": 0}, PLACEMENT)
    assert plan.owner[plan.graph.outputs["w"]] is plan.graph.outputs["w"]


def test_scans_that_run_at_the_same_time_share_nothing():
    """Two directions: whatever one of them writes, the other neither reads nor writes."""
    plan = plan_of("bilstm", "train_step")
    found = list(groups(plan.graph))
    assert [len(group) for group in found] == [2, 2]
    for group in found:
        written = [{plan.block(v) for n in scan.body.nodes if n not in plan.views for v in n.results} for scan in group]
        used = [blocks | {plan.block(v) for v in scan.operands} for blocks, scan in zip(written, group, strict=True)]
        for one, other in ((written[0], used[1]), (written[1], used[0])):
            assert not [(a, b) for a in one for b in other if a.offset < b.end and b.offset < a.end]


@pytest.mark.parametrize("model", MODELS)
def test_lanes_of_a_region_share_no_scratch_space(model: str, monkeypatch: pytest.MonkeyPatch):
    """Checks the views that the source makes for the threads that may work on a region at the same time."""
    plan = plan_of(model, "train_step")
    regions: list[list[tuple[np.ndarray, ...]]] = []  # for each, the views of its first tile by lane

    def record(views: Callable[[int, int], tuple[np.ndarray, ...]], number: int, step: int) -> Lanes:
        regions.append([views(lane, 0) for lane in range(min(LANES, number))])
        return []

    monkeypatch.setattr("runtime.cpu.threads.tiles", record)
    compiled = compiled_model(model)
    program = LoadedProgram(compiled.executable, compiled.manifest)
    program.views("train_step", program.batch)
    assert len(regions) == len(plan.regions)
    for (node, tiled), lanes in zip(plan.regions.items(), regions, strict=True):
        scratch = plan.block(plan.scratch[node]) if tiled.bytes_per_thread else None
        for lane, view in [(lane, view) for lane, views in enumerate(lanes) for view in views]:
            first, last = bytes_of(view, program.arena)
            if scratch and first < scratch.end and scratch.offset < last:
                start = scratch.offset + lane * tiled.bytes_per_thread
                assert start <= first and last <= start + tiled.bytes_per_thread, (
                    f"lane {lane} uses the scratch space of another"
                )


def bytes_of(view: np.ndarray, arena: np.ndarray) -> tuple[int, int]:
    """The first byte of a view in the arena, and the one after its last."""
    first = view.ctypes.data - arena.ctypes.data
    steps = (stride * (length - 1) for length, stride in zip(view.shape, view.strides, strict=True))
    return first, first + sum(steps) + view.itemsize


def test_parallel_scans_give_the_same_as_one_after_the_other(monkeypatch: pytest.MonkeyPatch):
    """Over ten steps, up to the order of sums in divided products."""
    compiled = compiled_model("bilstm")
    results = []
    for count in (1, 2):
        monkeypatch.setattr("runtime.cpu.threads.thread_count", lambda count=count: count)
        program = initialized(compiled, seed=1)
        inputs = values_for(compiled.module["train_step"], BATCH)
        results.append([run_program(program, "train_step", inputs, BATCH) for _ in range(10)][-1])
    for name in results[0]:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-5, atol=1e-6)


def test_offsets_reuse_gaps():
    blocks = [Block(None, 64, 0, 9), Block(None, 128, 0, 1), Block(None, 128, 2, 3)]  # type: ignore[arg-type]
    assert assign_offsets(blocks, 0) == 192
    assert {block.offset for block in blocks} == {0, 128}


def test_report_names_every_tensor():
    report = format_plan(plan_of("cnn", "train_step"))
    assert "%dense_1.w: f32[768,512]" in report and "scratch of %" in report and "lower bound" in report
    assert all(
        value.kind in VARIABLES or f"%{value.name}:" in report for value in plan_of("cnn", "train_step").graph.inputs
    )
