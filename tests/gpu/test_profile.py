"""`profile --gpu` on the emulated device: what is measured, and that the clock stays out of CUDA graphs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compiler.reports.profile import measure_kernels, with_clock
from runtime.gpu import cuda
from tests.cli.conftest import place
from tests.cli.running import nnc
from tests.gpu.cupy_inside import machine_code
from tests.gpu.emulation import cuda as emulation
from tests.gpu.running import compiled
from tests.programs import MODELS

__all__ = ["place"]
TICK = re.compile(r" *tick\(\d+\)")
LAUNCH = re.compile(r" *(\w+)\(.*\)")

pytestmark = pytest.mark.usefixtures("emulated")


@pytest.fixture(autouse=True)
def quick(emulated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything: the host takes its time."""
    for name, value in (("COPIED", 1 << 20), ("MATRIX_SIZE", 16), ("STEPS_PER_GRAPH", 2), ("FEWEST_LAUNCHES", 1)):
        monkeypatch.setattr(f"runtime.gpu.device_profiler.{name}", value)


def statements(source: str, name: str) -> list[str]:
    """The lines of a function nested in that of the training step, without comments."""
    lines = source.split("def bind_train_step")[1].splitlines()
    start = lines.index(f"    def {name}():")
    return [line for line in lines[start + 1 : lines.index("", start)] if not line.lstrip().startswith("#")]


def all_timed(lines: list[str]) -> bool:
    return all(LAUNCH.match(launch) and TICK.fullmatch(tick) for launch, tick in zip(*[iter(lines)] * 2, strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_every_launch_of_a_step_is_timed(model: str):
    executable, kernels = with_clock(compiled(model, "cupy"), "train_step")
    first, *lines = statements(executable.source, "run")
    assert first.strip() == "tick = clock.start()" and all_timed(lines)
    for launch, kernel in zip(lines[::2], kernels, strict=True):
        if kernel.nodes and kernel.nodes[0].op.name == "fused":
            assert launch.strip().startswith(f"{kernel.name}("), "a region has the name of its kernel"


def test_launches_in_loops_are_timed():
    executable, kernels = with_clock(compiled("bilstm", "cupy"), "train_step", inside=True)
    assert not any(TICK.fullmatch(line) for line in statements(executable.source, "run"))
    found = 0
    for scan in range(1, 5):
        lines = statements(executable.source, f"scan_{scan}")
        assert sum("clock.start()" in line for line in lines) == 1
        body = [line for line in lines if line.startswith(" " * 12)]
        assert body and all_timed(body)
        found += len(body) // 2
    assert found == len(kernels)


@pytest.mark.parametrize("inside", [False, True])
def test_kernels_are_measured(inside: bool, monkeypatch: pytest.MonkeyPatch):
    captured: list[emulation.Graph] = []
    capture = emulation.capture
    monkeypatch.setattr(emulation, "capture", lambda step: captured.append(capture(step)) or captured[-1])
    found = compiled("bilstm", "cupy")
    rows, measured = measure_kernels(found, "train_step", None, 2, inside)
    kernels = with_clock(found, "train_step", inside)[1]
    assert sum(row.calls for row in rows) == len(kernels) * (28 if inside else 1)
    assert sum(row.seconds for row in rows) > 0 and measured.step > 0
    assert measured.launched is not None and measured.launched > 0
    (graph,) = captured
    names = {launch.name for launch in graph.launches}
    assert "bidirectional_1_lstm_1_forward" in names and emulation.TICK not in names


def test_graphs_of_inference_are_measured():
    rows, measured = measure_kernels(compiled("cnn", "cupy"), "evaluate", None, 1)
    assert measured.steps == 1 and "conv2d" in {row.name for row in rows}


def test_the_command(place: Path):
    result = nnc("profile", "points.nn", "--gpu", "--steps", "3")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "points.nn: train_step, batch 16, 3 steps on points.npz"
    assert re.match(
        r"the host at best: \d+\.\d GB/s in a copy of 1 MB, \d+\.\d GFLOP/s in a product of 16 x 16", lines[1]
    )
    assert lines[4].split()[:2] == ["µs", "share"]
    assert any("matmul  3:19 dense_1" in line for line in lines)
    assert any("  batch_norm_1_forward  3:31 batch_norm_1" in line for line in lines)
    texts = (
        "in kernels, ",
        "outside kernels: batch copy and gaps between kernels",
        "whole step without the clock, as a CUDA graph, ",
    )
    assert all(text in line for text, line in zip(texts, lines[-4:-1], strict=True))
    assert lines[-1].endswith("the same without a CUDA graph, each kernel launched from Python")


def test_a_model_without_training(place: Path):
    (place / "plain.nn").write_text("model Plain(x: f32[B, 3]) { return x |> Dense(2) |> tanh }\n")
    assert (
        "plain.nn: predict, batch 128, 1 step on random numbers"
        in nnc("profile", "plain.nn", "--gpu", "--steps", "1").out
    )


def test_annotate(place: Path):
    result = nnc("annotate", "points.nn", "--gpu", "--steps", "1")
    assert (result.code, result.err) == (0, "") and re.search(r"forward +\d+\.\d{3} ms", result.out)
    without = nnc("annotate", "points.nn", "--target", "cupy", "--no-time")
    assert without.code == 0 and "batch_norm_1_forward" in without.out and " ms " not in without.out


@pytest.mark.parametrize("command", ["profile", "annotate"])
def test_a_target_is_measured_where_it_runs(command: str, place: Path):
    """`--target cupy` is the same as `--gpu`."""
    for flags in (["--target", "cupy"], ["--gpu"]):
        result = nnc(command, "points.nn", "--steps", "2", *flags)
        assert result.code == 0 and "forward" in result.out, result.err


def test_what_holds_the_gpu_back_is_cuda():
    assert machine_code(cuda.SLEEP)
