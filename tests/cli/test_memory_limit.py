"""--memory-limit: the memory that a program needs, the memory there is, and what would help."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from compiler.cli.memory_check import check_memory
from compiler.cli.memory_limit import Memory, memory_of_target, predicted_peak, read_size
from compiler.diagnostics import UserError
from runtime.cpu import free_memory
from runtime.datasets import footprint
from runtime.datasets.arrays import WIDEST
from runtime.datasets.files import BLOCK
from runtime.errors import RuntimeUserError
from runtime.training.predictions import prediction_footprint, read_examples, write_outputs
from tests.cli.running import nnc, process
from tests.programs import ROOT, compile_text

MEMINFO = "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:     2000 kB\n"
MODEL = """
model Wide(point: f32[B, 4]) {
  return point |> Dense(1000) |> relu |> Dense(3)
}

train Wide {
  loss      = softmax_cross_entropy
  optimizer = SGD(lr=0.1)
  batch     = 1000
}
"""


def test_training_is_refused_before_it_begins(place: Path):
    refused = process("train", ROOT / "models/cnn.nn", "--data", "digits", "--memory-limit", "60MB", folder=place)
    assert (refused.code, refused.out) == (2, "")
    lines = refused.err.splitlines()
    assert lines[0] == "error: CNN needs more memory than --memory-limit 60MB allows (graph train_step)"
    assert re.fullmatch(r"  expected: at most [\d.]+ [kM]?B \(the process already uses [\d.]+ MB\)", lines[1])
    assert re.fullmatch(r"  found: [\d.]+ MB: [\d.]+ MB of tensors, 11 MB of data, .* of code", lines[2])
    assert len([line for line in lines if " for " in line]) == 5 and "cnn.nn:5:15: " in refused.err
    assert not (place / "runs").exists()


@pytest.mark.parametrize("command", ["train points.nn", "eval points.nn", "profile points.nn", "predict run"])
def test_commands_that_run_a_program(command: str, place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_CACHE", str(place / "cache"))
    assert nnc("train", "points.nn", "--epochs", "1", "--out", "run").code == 0
    more = ("--input", "points.npy", "--output", "scores.npy") if "predict" in command else ()
    for size, code in (("64GB", 0), ("1 kB", 2)):  # the second time, the program is in the cache
        done = nnc(*command.split(), *more, "--memory-limit", size)
        assert done.code == code and ("allows" in done.err) == bool(code)


@pytest.mark.parametrize(("dtype", "order"), [("u1", "C"), ("f4", "C"), ("f4", "F"), ("f8", "C"), ("i8", "C")])
def test_arrays_for_prediction_are_counted(dtype: str, order: Literal["C", "F"], place: Path):
    rows = 500_000
    np.save("many.npy", np.ones((rows, 4), dtype, order=order))
    manifest = compile_text((place / "points.nn").read_text()).manifest
    needed = prediction_footprint("many.npy", manifest)
    specs = manifest.inputs
    tracemalloc.start()
    examples = read_examples("many.npy", specs, None, "own")
    _, peak = tracemalloc.get_traced_memory()
    write_outputs(Path("out.npy"), {"scores": np.ones((rows, 3), np.float32)})
    _, whole = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert examples and needed.rows == rows
    assert peak <= whole < 1.02 * (needed.arrays + needed.loading) + BLOCK * WIDEST


def test_prediction_is_refused_before_arrays_are_read(place: Path):
    assert nnc("train", "points.nn", "--epochs", "1", "--out", "run").code == 0
    np.save("many.npy", np.zeros((2_000_000, 4), np.float32))
    arguments = ("predict", "run", "--input", "many.npy", "--output", "y.npy", "--memory-limit")
    refused = process(*arguments, "64MB", folder=place)
    assert refused.code == 2 and not Path("y.npy").exists()
    assert "Points needs more memory than --memory-limit 64MB allows to predict 2,000,000 rows" in refused.err
    assert "32 MB of data, 72 MB of copies" in refused.err and "hint: split the rows into several files" in refused.err


def test_the_largest_batch_that_fits_is_named():
    compiled = compile_text(MODEL)
    peak = predicted_peak(compiled.executable, compiled.manifest, None)
    limit = peak.total - peak.tensors // 2
    with pytest.raises(UserError, match=r"--batch (\d+) needs") as caught:
        check_memory(compiled, Memory(limit, "this test has"))
    found = re.search(r"note: --batch (\d+) needs .*; now it is 1000$", str(caught.value))
    assert found
    batch = int(found[1])
    for size, fits in ((batch, True), (batch + 1, False)):
        other = compile_text(MODEL.replace("1000\n}", f"{size}\n}}"))
        peak = predicted_peak(compiled.executable, compiled.manifest, None)
        assert (peak.total - peak.tensors + other.executable.arena_bytes <= limit) == fits


@pytest.mark.parametrize(
    ("text", "size"),
    [("100", 100), ("2GB", 2 * 10**9), ("512 MB", 512 * 10**6), ("1.5GiB", 3 << 29), ("1kB", 1000), ("3KiB", 3072)],
)
def test_sizes(text: str, size: int):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "2 G", "2gb", "1 000", "0x10", "nan", "9" * 19 + "B"])
def test_sizes_that_are_none(text: str):
    with pytest.raises(RuntimeUserError, match="--memory-limit takes a size"):
        read_size(text)


def system(root: Path, groups: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Stand-ins for /proc and /sys/fs/cgroup: memory of the machine, groups of the process, files of the groups."""
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, root / "cgroup"


@pytest.mark.parametrize(
    ("groups", "files", "kilobytes"),
    [
        ("0::/\n", {}, 2000),
        ("0::/\n", {"memory.max": "max", "memory.current": "5"}, 2000),
        ("0::/\n", {"memory.max": str(900 << 10), "memory.current": str(400 << 10)}, 500),
        (
            "0::/a/b\n",
            {
                "a/memory.max": str(900 << 10),
                "a/memory.current": str(400 << 10),
                "a/memory.stat": f"anon 5\ninactive_file {100 << 10}\n",
                "a/b/memory.max": "max",
                "a/b/memory.current": "7",
            },
            600,
        ),
        (
            "5:cpu:/x\n4:memory:/above/here\n0::/\n",
            {"memory/memory.limit_in_bytes": str(700 << 10), "memory/memory.usage_in_bytes": str(800 << 10)},
            0,
        ),
        (
            "4:memory:/\n",
            {"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "1"},
            2000,
        ),
    ],
)
def test_what_is_free(groups: str, files: dict[str, str], kilobytes: int, tmp_path: Path):
    assert free_memory.free(*system(tmp_path, groups, files)) == kilobytes << 10


def test_where_the_system_does_not_tell(tmp_path: Path):
    assert free_memory.free(tmp_path, tmp_path) == free_memory.installed()
    assert free_memory.resident(tmp_path) == 0


def test_a_limit_counts_what_the_process_has():
    memory = memory_of_target("numpy", "1GB")
    assert memory.bytes is not None and 10**9 - 10**9 // 2 < memory.bytes < 10**9 - 10**7
    assert memory_of_target("numpy", "1MB").bytes == 0


def test_footprints(place: Path):
    assert footprint("points.npz").arrays == 90 * (4 + 1) * 4
    assert footprint("digits").arrays == 14_000 * 785
    assert footprint("mnist").arrays == 70_000 * 785


def test_checkpoints_that_wait_are_counted():
    peaks = []
    for entry in ("checkpoint = 1", "checkpoint = 9"):
        compiled = compile_text(MODEL.replace("batch  ", f"{entry}\n  batch  "))
        peaks.append(predicted_peak(compiled.executable, compiled.manifest, None))
    weights = 4 * (4 * 1000 + 1000 + 1000 * 3 + 3) + 12  # f32 each, the seed and the step
    assert [peak.copies for peak in peaks] == [2 * weights, 4 * weights]
