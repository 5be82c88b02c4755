"""Commands with --native, as for NumPy programs: checks of numbers, replay, runs that move between targets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tests.native.compiler_or_skip  # noqa: F401
from compiler.cli.commands import run as running
from runtime.training.captures import read_dump
from tests.cli.conftest import place  # noqa: F401  # a fixture
from tests.cli.running import Result, nnc, process
from tests.programs import MODELS, ROOT

DIVERGING = ("--set", "train.optimizer=SGD(lr=1e30)")
ROUNDING = 1e-4  # of weights, relative to the largest, after a few epochs


def trained(*arguments: str | Path, code: int = 0) -> Result:
    result = nnc("train", *arguments, "--quiet")
    assert result.code == code, result.err
    return result


def conditions(folder: str) -> list[dict]:
    lines = map(json.loads, Path(folder, "log.jsonl").read_text().splitlines())
    return [line["conditions"] for line in lines if "conditions" in line]


def assert_close(one: str, other: str) -> None:
    first, second = (load_file(f"{folder}/last.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(array, second[name], atol=ROUNDING * max(1.0, np.abs(array).max()), err_msg=name)


# Numbers that are not finite ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("flags", [(), ("--check-numerics",)])
def test_the_first_bad_op(flags: tuple[str, ...]):
    error = trained("points.nn", "--native", *DIVERGING, "--out", "run", *flags, code=2).err
    for part in (
        "error: training diverged in epoch 1, step 2 of 5",
        "epoch 0 is saved and intact",
        "first bad op: sum_of_products, points.nn:3:31, layer batch_norm_1, forward",
        "overflow: beyond the range of the type",
        "found by running the step again as NumPy code, which is equal up to rounding",
        "nnc replay run/numerics-1-2.safetensors runs this step again",
    ):
        assert part in error, part
    replayed = nnc("replay", "run/numerics-1-2.safetensors")
    assert (replayed.code, replayed.err) == (0, "")
    assert 'it was trained by target "c", which is equal up to rounding' in replayed.out
    assert replayed.out.endswith("finite in float64: the numbers are beyond the range of float32\n")


@pytest.mark.usefixtures("place")
def test_a_dump_is_that_of_numpy():
    """The same step with the same batch; the variables before it up to rounding."""
    for folder, flags in (("numpy", ()), ("native", ("--native",))):
        trained("points.nn", *DIVERGING, "--check-numerics", "--out", folder, *flags, code=2)
    (plain, recipe), (native, its_recipe) = (
        read_dump(Path(f, "numerics-1-2.safetensors")) for f in ("numpy", "native")
    )
    assert recipe == its_recipe
    assert (plain.graph, plain.step, plain.steps, plain.data) == (native.graph, native.step, native.steps, native.data)
    assert plain.indices.tobytes() == native.indices.tobytes()
    assert all(array.tobytes() == native.inputs[name].tobytes() for name, array in plain.inputs.items())
    for name, array in plain.before.items():
        np.testing.assert_allclose(native.before[name], array, rtol=1e-4, err_msg=name)
    assert (plain.conditions["target"], native.conditions["target"]) == ("numpy", "c")


@pytest.mark.usefixtures("place")
def test_variables_are_checked_after_every_step():
    """The loss is finite, and a variable that does not change it is not."""
    program = Path("points.nn")
    late = '\noptimizer Late(lr)(p, g, step) { return p - lr * 0 * sqrt(2 - cast(step, "f32")) }\n'
    program.write_text(program.read_text().replace("SGD(lr=0.1, momentum=0.9, decay=1e-3)", "Late(lr=0.1)") + late)
    error = trained("points.nn", "--native", "--check-numerics", "--out", "run", code=2).err
    assert "training diverged in epoch 1, step 4 of 5" in error and "NaN or Inf in " in error
    assert "first bad op: sqrt, points.nn:" in error and ", update\n" in error


@pytest.mark.usefixtures("place")
def test_checks_change_no_bit():
    for folder, flags in (("plain", ()), ("checked", ("--check-numerics",))):
        trained("points.nn", "--native", "--epochs", "2", "--out", folder, *flags)
    plain, checked = (load_file(f"{folder}/last.safetensors") for folder in ("plain", "checked"))
    assert all(array.tobytes() == checked[name].tobytes() for name, array in plain.items())


# Runs that move between targets ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("place")
def test_a_run_moves_to_c_and_back():
    trained("points.nn", "--epochs", "6", "--out", "numpy")
    trained("points.nn", "--epochs", "2", "--out", "moved")
    there = trained("--resume", "moved", "--native", "--epochs", "4")
    assert 'warning: "moved" continues on another target; results are equal up to rounding\n' in there.err
    assert "found: target numpy then, c now\n" in there.err
    back = trained("--resume", "moved", "--epochs", "6")
    assert "found: target c then, numpy now\n" in back.err
    assert_close("numpy", "moved")
    assert nnc("eval", "moved", "--native").out == nnc("eval", "moved").out.replace("\r", "")
    assert not trained("--resume", "moved", "--epochs", "7").err


@pytest.mark.usefixtures("place")
def test_the_log_has_the_conditions_of_code_in_c():
    trained("points.nn", "--native", "--threads", "2", "--epochs", "1", "--out", "run")
    (known,) = conditions("run")
    assert (known["target"], known["threads"]) == ("c", 2)
    assert known["compiler"] and "-O3" in known["flags"] and isinstance(known["processor"], list)
    resumed = trained("--resume", "run", "--native", "--threads", "1", "--epochs", "2")
    assert "continues under other conditions; last digits may differ\n  found: threads 2 then, 1 now\n" in resumed.err
    trained("points.nn", "--epochs", "1", "--out", "plain")
    assert "compiler" not in conditions("plain")[0]


@pytest.mark.parametrize("how", [(), ("--kill",)])
def test_resuming_is_exact(place: Path, how: tuple[str, ...]):  # noqa: F811
    done = process("verify-resume", "points.nn", "--native", "--epochs", "2", *how, folder=place)
    assert (done.code, done.err) == (0, "")
    assert "bit-exact: 16 tensors with 184 values" in done.out


# A hint ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("place")
def test_a_long_training_says_that_there_is_native(monkeypatch: pytest.MonkeyPatch):
    def said(*flags: str) -> bool:
        return "with --native the same program runs as C" in nnc("train", "points.nn", "--epochs", "1", *flags).out

    assert not said("--out", "short")
    monkeypatch.setattr(running, "LONG", 0)
    assert said("--out", "long")
    assert not said("--out", "quiet", "--quiet") and not said("--out", "native", "--native")
    monkeypatch.setattr(running, "candidates", lambda: iter(()))
    assert not said("--out", "none")


# Reports --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_what_is_reported_is_in_the_text(model: str):
    """Each region and each other op is one function, and is called once."""
    graph = "train_step"
    report = nnc("explain-fusion", ROOT / f"models/{model}.nn", "--target", "c", "--graph", graph).out
    source = nnc("emit", ROOT / f"models/{model}.nn", "--target", "c").out
    (text,) = re.findall(rf'^{graph} = Graph\(r"""\n(.*?)^"""', source, re.DOTALL | re.MULTILINE)
    regions = len(re.findall(r"^  region ", report, re.MULTILINE))
    others = sum(map(int, re.findall(r"(\d+) (?:not fused|nodes?, no regions)$", report, re.MULTILINE)))
    scans = set(re.findall(r"^static void (scan_\d+)\(", text, re.MULTILINE))
    called = [name for name in re.findall(r"^ +(\w+)\(s\);", text, re.MULTILINE) if name not in {*scans, "barrier"}]
    # initial values of scans, which are literals that a pass wrote into memory
    written = re.findall(r"^// %\w+: \S+ = broadcast\(", text, re.MULTILINE)
    assert len(called) == len(set(called)) == regions + others - len(scans) + len(written)
    assert all(f"static void {name}(const Step *s)" in text for name in called)


def test_annotate_names_lines_of_the_text():
    path = ROOT / "models/mlp.nn"
    shown = nnc("annotate", path, "--target", "c", "--no-time", "--data", "digits").out
    source = nnc("emit", path, "--target", "c", "--data", "digits").out.splitlines()
    (line,) = re.findall(r"^  6 \| .*?(?=^  7 \|)", shown, re.DOTALL | re.MULTILINE)
    ranges = re.findall(r"(\d+)–(\d+)", line.partition("code")[2])
    code = "\n".join(each for first, last in ranges for each in source[int(first) - 1 : int(last)])
    assert "static void dense_1_forward(" in code and "static void dense_1_w_update_tile(" in code
    assert "dense_1_w_update" in line and "dense_2_forward(" not in code


@pytest.mark.usefixtures("place")
def test_the_profile_has_a_row_for_each_region(monkeypatch: pytest.MonkeyPatch):
    shown = nnc("profile", "points.nn", "--native", "--steps", "5", "--threads", "1")
    assert (shown.code, shown.err) == (0, "")
    assert "this machine at best, 1 thread: " in shown.out
    source = nnc("emit", "points.nn", "--target", "c", "--data", "points.npz").out
    (text,) = re.findall(r'^train_step = Graph\(r"""\n(.*?)^"""', source, re.DOTALL | re.MULTILINE)
    called = {name for name in re.findall(r"^ +(\w+)\(s\);", text, re.MULTILINE)} - {"barrier"}
    rows = re.findall(r"^ +\d+\.\d+ +\d+\.\d% +1 .*?  ([a-z]\w+)  ", shown.out, re.MULTILINE)
    copies = len(re.findall(r"^ +copy\(s, ", text, re.MULTILINE))  # of new values into their variables
    assert {*rows} - {"copy"} == called and f"in kernels, {len(called) + copies} calls" in shown.out
    monkeypatch.setenv("NNC_TARGET", "c")
    assert nnc("emit", "points.nn", "--data", "points.npz").out == source
