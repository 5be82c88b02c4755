"""Training that diverges, from the command line: the error and its report, the dump, and its `replay`."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from compiler.cli import divergence
from runtime.errors import RuntimeUserError
from runtime.training.captures import Capture, Recipe, read_dump, write_dump
from tests.cli.running import Result, nnc

DIVERGING = ("--set", "train.optimizer=SGD(lr=1e30)")


def diverge(*flags: str, out: str = "run") -> Result:
    return nnc("train", "points.nn", *DIVERGING, "--out", out, *flags)


def only_dump(folder: str = "run") -> Path:
    (path,) = Path(folder).glob("numerics-*.safetensors")
    return path


@pytest.mark.parametrize("flags", [(), ("--check-numerics",)])
def test_the_report(place: Path, flags: tuple[str, ...]):
    result = diverge(*flags)
    assert result.code == 2 and len(result.out.splitlines()) == 1 and result.out.endswith(" parameters\n")
    warning, error, rest = result.err.partition("error: ")
    assert "far above the usual for SGD" in warning and warning.count("warning: ") == 1
    first, *lines = (error + rest).splitlines()
    assert first.startswith("error: training diverged in epoch 1, step ") and first.endswith(" of 5")
    report = "\n".join(lines)
    for part in (
        "optimizer = SGD(lr=1e+30)",
        'lower the learning rate: --set train.optimizer="SGD(lr=0.1)"',
        "epoch 0 is saved and intact",
        "first bad op: ",
        ", points.nn:",
        "overflow: beyond the range of the type",
        "batch: epoch 1, step ",
        f"nnc replay {only_dump()} runs this step again",
    ):
        assert part in report, part
    capture, _ = read_dump(only_dump())
    assert only_dump().name == f"numerics-1-{capture.step}.safetensors"
    assert all(np.isfinite(array).all() for array in load_file("run/last.safetensors").values())
    assert nnc("eval", "run").code == 0


def test_a_batch_larger_than_the_data(place: Path):
    diverge("--batch", "1000000000", "--memory-limit", "2GB")
    assert read_dump(only_dump())[1].rows == 75
    assert "same bits" in nnc("replay", only_dump()).out


def test_the_same_step_is_captured_with_and_without_checks(place: Path):
    captures = []
    for out, flags in (("plain", ()), ("checked", ("--check-numerics",))):
        diverge(*flags, out=out)
        captures.append(read_dump(only_dump(out))[0])
    plain, checked = captures
    assert (plain.step, plain.result, plain.bad) == (checked.step, checked.result, checked.bad)
    assert np.array_equal(plain.indices, checked.indices)
    assert all(plain.before[name].tobytes() == array.tobytes() for name, array in checked.before.items())


def test_checks_change_no_bit(place: Path):
    for out, flags in (("plain", ()), ("checked", ("--check-numerics",))):
        assert nnc("train", "points.nn", "--epochs", "2", "--out", out, *flags).code == 0
    plain, checked = (load_file(f"{out}/last.safetensors") for out in ("plain", "checked"))
    assert all(array.tobytes() == checked[name].tobytes() for name, array in plain.items())


def test_replay(place: Path):
    diverge()
    result = nnc("replay", only_dump())
    assert (result.code, result.err) == (0, "")
    assert "fused code: the same bits as in training" in result.out
    assert "code without fusion\n  loss " in result.out and "interpreter in float64\n  all finite" in result.out
    assert result.out.count("first bad op: ") == 2 and "run/program.nn:" in result.out
    assert result.out.endswith("finite in float64: the numbers are beyond the range of float32\n")
    assert nnc("replay", only_dump()).out == result.out


def test_a_resumed_run_that_diverges(place: Path):
    text = (place / "points.nn").read_text().replace("SGD(lr=0.1, momentum=0.9, decay=1e-3)", "Late(lr=0.1)")
    late = '\noptimizer Late(lr)(p, g, step) { return p - lr * g * sqrt(16 - cast(step, "f32")) }\n'
    (place / "points.nn").write_text(text + late)
    assert nnc("train", "points.nn", "--epochs", "2", "--out", "run").code == 0
    result = nnc("train", "--resume", "run", "--epochs", "5", "--check-numerics")
    assert result.code == 2 and "training diverged in epoch 4, step 3 of 5" in result.err  # step 17, counted from 0
    assert "found: NaN or Inf in" in result.err and "epoch 3 is saved" in result.err
    assert "first bad op: sqrt, run/program.nn:" in result.err and ", update\n" in result.err
    assert "same bits" in nnc("replay", only_dump()).out


def test_a_file_that_changed_meanwhile(place: Path, monkeypatch: pytest.MonkeyPatch):
    """The report has lines of the program that was trained."""
    explain = divergence.explain

    def later(*arguments):
        (place / "points.nn").write_text("# another line\n" + (place / "points.nn").read_text().replace("16", "17"))
        explain(*arguments)

    monkeypatch.setattr(divergence, "explain", later)
    assert ", program.nn:" in diverge().err


def test_a_full_disk(place: Path, monkeypatch: pytest.MonkeyPatch):
    """There is no dump, but a report."""

    def full(*arguments):
        raise RuntimeUserError("cannot write the dump", found="No space left on device")

    monkeypatch.setattr(divergence, "write_dump", full)
    errors = diverge().err
    assert "first bad op: " in errors and errors.endswith(
        "error: cannot write the dump\n  found: No space left on device\n"
    )


def test_a_loss_that_grows(place: Path):
    """Training continues, with one warning."""
    result = nnc(
        "train", "points.nn", "--set", "train.optimizer=SGD(lr=30)", "--epochs", "12", "--batch", "8", "--out", "run"
    )
    assert result.code == 0 and result.err.count("warning: the loss grew ") == 1
    assert "x in 20 steps; optimizer = SGD(lr=30); lower the learning rate" in result.err


def test_passes_and_the_gpu(place: Path):
    assert diverge("--disable", "simplify").code == 2
    assert "simplify" not in read_dump(only_dump())[1].passes
    assert "same bits" in nnc("replay", only_dump()).out
    refused = nnc("train", "points.nn", "--gpu", "--check-numerics")
    assert refused.code == 2 and "error: --check-numerics checks every step on the CPU" in refused.err


# Dumps that are none --------------------------------------------------------------------------------------------------


@pytest.fixture
def dump(place: Path) -> Path:
    diverge()
    return only_dump()


def refused(path: Path | str, *parts: str) -> None:
    result = nnc("replay", path)
    assert (result.code, result.out) == (2, "") and result.err.startswith("error: "), result
    assert all(part in result.err for part in parts), result.err


def test_damaged_dumps(dump: Path):
    data, damaged = dump.read_bytes(), dump.with_name("damaged.safetensors")
    choose = random.Random(0)
    for kind in range(150):
        bytes_ = bytearray(data)
        if kind % 3:
            bytes_[choose.randrange(len(data) if kind % 2 else 4000)] ^= 1 << choose.randrange(8)
        else:
            del bytes_[choose.randrange(len(data)) :]
        damaged.write_bytes(bytes_)
        refused(damaged, "damaged.safetensors")


def test_other_files(dump: Path):
    refused("nothing.safetensors", "cannot be opened")
    refused("run", "cannot be read", "a folder")
    refused("points.nn", "damaged or not a dump")
    refused("run/last.safetensors", "is not a dump of a training step")


def forged(path: Path, **changes: object) -> Path:
    """A dump whose recipe or step is another, with a hash that fits."""
    capture, recipe = read_dump(path)
    of_recipe = {name: value for name, value in changes.items() if name in Recipe.__dataclass_fields__}
    of_capture = {name: value for name, value in changes.items() if name in Capture.__dataclass_fields__}
    other = path.with_name("forged.safetensors")
    write_dump(other, replace(capture, **of_capture), replace(recipe, **of_recipe))  # type: ignore[arg-type]
    return other


def test_dumps_that_fit_no_program(dump: Path):
    capture, recipe = read_dump(dump)
    refused(forged(dump, text="model M("), "cannot be compiled")
    refused(forged(dump, text='import "points.nn"\n' + recipe.text), "imports files")
    refused(forged(dump, passes=("simplify",)), "no code can be generated")
    refused(forged(dump, passes=("nothing",)), "there is no pass nothing")
    refused(forged(dump, model="Other"), "cannot be compiled")
    refused(forged(dump, storage={"point": ["f99", 1.0]}))
    refused(forged(dump, storage={"point": [1]}))
    refused(forged(dump, graph="init"), "contents are not valid")
    refused(forged(dump, indices=np.arange(10_000)), "does not fit")
    refused(forged(dump, indices=np.array(3)), "contents are not valid")
    refused(forged(dump, indices=capture.indices.reshape(1, -1)), "contents are not valid")
    label = capture.inputs["label"]
    for wrong in (-1, 3, 2**31 - 1):
        refused(forged(dump, inputs={**capture.inputs, "label": np.full_like(label, wrong)}), "from 0 to 2")
    refused(forged(dump, before={}), "does not fit", "variables")
    refused(forged(dump, inputs={**capture.inputs, "point": np.zeros((1, 1), np.float32)}), "does not fit", "point")
