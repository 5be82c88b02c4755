"""Source with a clock does the same as without; its kernels cover everything that runs; costs follow from types."""

from __future__ import annotations

import re

import numpy as np
import pytest

from compiler.driver import Compilation
from compiler.planning.costs import Cost, cost_of
from compiler.planning.memory import scan_length
from compiler.reports.profile import KernelRow, Profile, format_profile, measure_kernels, profile, rows_of, with_clock
from compiler.targets.shared.writer import Kernel
from runtime.cpu.profiler import Ceilings, Clock, Measured, measure, measure_ceilings, random_arrays, tick_nanoseconds
from runtime.datasets.dataset import Dataset, Split
from runtime.feeding import fitted
from runtime.program import LoadedProgram
from tests.programs import MODELS, compile_text, compiled_model, initialized, read_graph, run_program

TINY = """
model Tiny(x: f32[B, 4]) { return x |> Dense(8) |> tanh |> Dense(3) }
train Tiny { loss = softmax_cross_entropy; metrics = [accuracy]; optimizer = SGD(lr=0.1); batch = 16 }
"""
NESTED = """
cell Rows(units)(x: f32[B, T, n]) {
  carry h: f32[B, units] = 0
  h = tanh(h + last(scan(LSTM(units), x)))
  return h
}
model Nested(image: f32[B, 5, 4, 3]) {
  return concat(last(scan(Rows(6), image)), last(scan(Rows(6), image, reverse=true))) |> Dense(3)
}
"""
CEILINGS = Ceilings("this machine", copied=64 << 20, matrix_size=1024, gigabytes=10.0, gigaflops=100.0)


def bare(source: str) -> list[str]:
    """The lines of a source without those of the clock."""
    return [line for line in source.splitlines() if line and not re.search(r"\btick\b|\bclock\b|Clock", line)]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_the_clock_is_all_that_differs(model: str, inside: bool):
    compiled = compiled_model(model)
    executable, kernels = with_clock(compiled, "train_step", inside)
    assert bare(executable.source) == bare(compiled.executable.source)
    ticks = [int(match) for match in re.findall(r"\btick\((\d+)\)", executable.source)]
    assert sorted(ticks) == list(range(len(kernels)))
    assert kernels or inside


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("model", ["cnn", "bilstm"])
def test_a_clock_changes_no_result(model: str, inside: bool):
    compiled = compiled_model(model)
    executable, _ = with_clock(compiled, "train_step", inside)
    plain, timed = initialized(compiled), LoadedProgram(executable, compiled.manifest)
    timed.initialize(0)
    inputs = random_arrays(plain, "train_step")
    batch = compiled.executable.batch
    expected, found = (run_program(program, "train_step", inputs, batch) for program in (plain, timed))
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("model", MODELS)
def test_every_statement_of_a_step_is_in_a_kernel(model: str):
    """Every call in `run` is followed by its own tick, except for further lines of the same op."""
    executable, kernels = with_clock(compiled_model(model), "train_step")
    lines = executable.source.splitlines()
    start = lines.index("    def run():", next(i for i, s in enumerate(lines) if s.startswith("def bind_train_step")))
    body = [line.strip() for line in lines[start + 1 : lines.index("", start)]]
    assert body[0] == "tick = clock.start()" and body[-1] == f"tick({len(kernels) - 1})"
    nodes = [node for kernel in kernels for node in kernel.nodes]
    assert len(nodes) == len(set(nodes))


def test_steps_are_measured():
    compiled = compile_text(TINY)
    rows, measured = measure_kernels(compiled, "train_step", None, 6)
    assert measured.steps == 6 and measured.step > 0
    assert all(row.calls >= 1 and row.seconds >= 0 for row in rows)
    assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
    assert sum(row.calls for row in rows) == len(with_clock(compiled, "train_step")[1])
    assert 0 < sum(row.seconds for row in rows) < 100 * measured.step


def test_statements_inside_loops_are_counted_per_iteration():
    compiled = compiled_model("bilstm")
    kernels = with_clock(compiled, "predict", inside=True)[1]
    rows, _ = measure_kernels(compiled, "predict", None, 1, inside=True)
    (scan, *_) = (node for node in compiled.optimized["predict"].nodes if node.op.name == "scan")
    assert sum(row.calls for row in rows) == len(kernels) * scan_length(scan, 1)


def test_scans_at_the_same_time_with_scans_inside():
    compiled = compile_text(NESTED)
    names = [kernel.name for kernel in with_clock(compiled, "predict")[1]]
    assert "scan_1, scan_3" in names and not {"scan_2", "scan_4"} & set(names)
    rows, _ = measure_kernels(compiled, "predict", None, 1, inside=True)
    assert sorted(row.calls for row in rows if row.name == "matmul") == [5, 5, 5 * 4, 5 * 4]
    assert not [row.name for row in rows if row.name.startswith("scan")]  # what they run is already counted


def test_a_whole_profile_has_all_its_parts():
    compiled = compile_text(TINY)
    labels = np.zeros(40, np.int32)
    data = Split({"x": np.ones((40, 4), np.float32), "label": labels})
    measured = profile(compiled, "train_step", Dataset("points", data, data), 2)
    text = format_profile(measured)
    assert "test.nn: train_step, batch 16, 2 steps on points" in text and "GFLOP/s" in text
    assert text.count("made by the compiler") == 1  # the counter of steps
    assert text.rstrip().endswith("whole step without the clock, mean of the faster half")


def test_shares_add_up():
    """The kernels and the time outside them add up to the whole step, however it was measured."""
    rows = [KernelRow("matmul", (), 1, 0.006, Cost(10, 20)), KernelRow("add", (), 2, 0.003, Cost(0, 0))]
    shown = Profile("a.nn", "predict", 8, "points", rows, Measured([], [], 0.010, 50), CEILINGS)
    lines = format_profile(shown).splitlines()
    figures = [line.split()[:2] for line in lines if re.match(r" +\d", line)]
    assert figures == [
        ["6.000", "60.0%"],
        ["3.000", "30.0%"],
        ["9.000", "90.0%"],
        ["1.000", "10.0%"],
        ["10.000", "100.0%"],
    ]


def test_figures_are_held_against_the_ceilings():
    row = KernelRow("matmul", (), 1, 0.001, Cost(5_000_000, 50_000_000))
    text = format_profile(Profile("a.nn", "predict", 8, "points", [row], Measured([], [], 0.001, 1), CEILINGS))
    assert "5.0   50%     50.0   50%  matmul  made by the compiler" in text


def test_kernels_of_one_name_and_place_are_a_row():
    graph = read_graph(
        """graph g(%x: f32[B,4] input) {
  %0: f32[B,4] = exp(%x)  // a.nn:1:2 dense_1
  %1: f32[B,4] = exp(%0)  // a.nn:1:2 dense_1
  %2: f32[B,4] = exp(%1)  // a.nn:2:2
  return y=%2
}"""
    )
    kernels = [Kernel("exp", [node]) for node in graph.nodes]
    rows = rows_of(kernels, Measured([0.1, 0.2, 0.7], [1, 1, 1], 1.0, 1), batch=10)
    assert [(row.calls, round(row.seconds, 9), row.cost) for row in rows] == [
        (1, 0.7, Cost(320, 40)),
        (2, 0.3, Cost(640, 80)),
    ]


@pytest.mark.parametrize(
    ("operands", "node", "expected"),
    [
        ("%a: f32[B,8], %b: f32[8,3]", "f32[B,3] = matmul(%a, %b)", Cost(4 * (80 + 24 + 30), 2 * 10 * 8 * 3)),
        ("%a: f32[B,4], %b: f32[4]", "f32[B,4] = add(%a, %b)", Cost(4 * (40 + 4 + 40), 40)),
        ("%a: f32[B,4]", "f32[B,4] = mul(%a, %a)", Cost(4 * 80, 40)),
        ("%a: f32[B,4]", "f32[B,4] = mul(%a, 2.0)", Cost(4 * 80, 40)),
        ("%a: f32[B,4]", "f32[4] = sum(%a, axes=[0], keepdims=false)", Cost(4 * 44, 40)),
        ("%a: u8[B,4]", 'f32[B,4] = cast(%a, dtype="f32")', Cost(5 * 40, 0)),
        ("%a: f32[1000,4], %b: i32[B]", "f32[B,4] = gather(%a, %b)", Cost(4 * 10 + 2 * 160, 0)),
        (
            "%a: f32[B,6,6,2], %b: f32[3,3,2,5]",
            "f32[B,4,4,5] = conv2d(%a, %b, stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1], groups=1)",
            Cost(4 * (720 + 90 + 800), 2 * 800 * 18),
        ),
    ],
)
def test_costs(operands: str, node: str, expected: Cost):
    kinds = ", ".join(f"{operand} input" for operand in operands.split(", "))
    graph = read_graph(f"graph g({kinds}) {{\n  %0: {node}\n  return y=%0\n}}")
    assert cost_of(graph.nodes[0], batch=10) == expected


def test_a_region_moves_what_comes_in_and_goes_out():
    graph = read_graph(
        """graph g(%x: f32[B,4] input) {
  %0: f32[B,4] = fused(%x, step=0, body=graph body(%x0: f32[B,4]) {
    %0: f32[B,4] = exp(%x0)
    %1: f32[B,4] = add(%0, 1.0)
    return y0=%1
  })
  return y=%0
}"""
    )
    assert cost_of(graph.nodes[0], batch=10) == Cost(320, 80)


PRODUCTS = ("matmul", "conv2d", "conv2d_input_grad", "conv2d_filter_grad")


@pytest.mark.parametrize("model", ["mlp", "cnn", "separable_cnn"])
def test_a_step_has_three_products_for_each_of_the_model(model: str):
    """Forward, for the parameters and for the input; the last not for the first layer."""
    compiled = compiled_model(model)
    forward, step = (products(compiled, graph) for graph in ("predict", "train_step"))
    assert 2 * forward < step <= 3 * forward


def products(compiled: Compilation, graph: str) -> int:
    return sum(cost_of(node, 128).operations for node in compiled.optimized[graph].nodes if node.op.name in PRODUCTS)


def test_the_clock_belongs_to_its_thread_and_starts_anew():
    clock = Clock()
    first, second = clock.start(), clock.start()
    first(0)
    second(1)
    first(2)
    assert [[kernel for kernel, _ in lap] for lap in clock.laps] == [[0, 2], [1]]
    assert all(nanoseconds >= 0 for lap in clock.laps for _, nanoseconds in lap)
    assert 0 <= tick_nanoseconds() < 1e6


def test_ceilings_are_positive(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.cpu.profiler.COPIED", 1000)
    monkeypatch.setattr("runtime.cpu.profiler.MATRIX_SIZE", 16)
    ceilings = measure_ceilings()
    assert ceilings.machine.startswith("this machine at best, ") and ceilings.gigabytes > 0 and ceilings.gigaflops > 0


def test_random_inputs_fit_the_program():
    program = initialized(compiled_model("cnn"))
    arrays = random_arrays(program, "train_step")
    assert fitted(program, "train_step", arrays, "training").keys() == {"image", "label"}
    assert arrays["image"].min() < 0 < arrays["image"].max()
    assert arrays["label"].min() == 0 and arrays["label"].max() == 9


def test_a_program_is_measured_on_the_arena_of_the_other():
    compiled = compile_text(TINY)
    executable, kernels = with_clock(compiled, "train_step")
    plain, timed = initialized(compiled), LoadedProgram(executable, compiled.manifest)
    timed.arena = plain.arena
    measured = measure(plain, timed, "train_step", random_arrays(plain, "train_step"), len(kernels), 3)
    assert len(measured.seconds) == len(measured.calls) == len(kernels)
    assert plain.variables()["step"] == 2 * (3 + 1)
