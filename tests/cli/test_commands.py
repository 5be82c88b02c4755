"""What the commands do with a tiny program: results, files and exit codes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from compiler.cli.flags import COMMANDS, STAGES
from compiler.cli.programs import shipped
from tests.cli.running import nnc
from tests.programs import ROOT

EPOCH_LINE = re.compile(
    r"loss: \d+\.\d{4} / \d+\.\d{4}\taccuracy: [01]\.\d{4} / [01]\.\d{4}\tstep (\d+)  \d+\.\d{2} sec"
)


def tensors(folder: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(folder / "last.safetensors").items()}


def train(*arguments: str | Path) -> str:
    result = nnc("train", *arguments)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_help_and_version():
    help = nnc("--help")
    assert help.code == 0 and help.err == ""
    assert "examples:" in help.out and "nnc train cnn" in help.out
    for command in ("train", "eval", "predict", "summary", "check", "emit", "opt", "plan"):
        assert f"    {command} " in help.out
        assert nnc(command, "--help").out.startswith(f"usage: nnc {command} ")
    assert re.fullmatch(r"nnc \d+\.\d+\.\d+\n", nnc("--version").out)


def test_train_prints_a_line_for_each_epoch(place: Path):
    lines = train("points.nn", "--out", "run").splitlines()
    assert [match[1] for line in lines[1:5] if (match := EPOCH_LINE.fullmatch(line))] == ["1", "2", "3", "4"]
    assert lines[5].startswith("4 epochs, best epoch ") and lines[-1] == "run"
    assert sorted(path.name for path in (place / "run").iterdir()) == [
        "best.safetensors", "data.json", "last.safetensors", "log.jsonl", "previous.safetensors", "program.nn"
    ]  # fmt: skip
    log = [json.loads(line) for line in (place / "run/log.jsonl").read_text().splitlines()]
    assert [record.get("epoch") for record in log] == [None, 1, 2, 3, 4]


def test_quiet_training_prints_the_summary_alone(place: Path):
    assert train("points.nn", "--quiet", "--out", "run").startswith("4 epochs, best epoch ")


def test_every_run_has_a_new_folder(place: Path):
    first, second = (train("points.nn", "--quiet", "--epochs", "1").splitlines()[-1] for _ in range(2))
    assert re.match(r"runs/Points-\d{8}-\d{6}", first) and first != second


@pytest.mark.parametrize("seed", ["0", "7"])
def test_a_seed_makes_the_same_run(place: Path, seed: str):
    for folder in ("a", "b"):
        train("points.nn", "--seed", seed, "--out", folder)
    assert tensors(place / "a") == tensors(place / "b")
    train("points.nn", "--seed", "3", "--out", "other")
    assert tensors(place / "a") != tensors(place / "other")


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_resumed_run_is_the_same_run(place: Path, epochs: int):
    """Bit for bit, wherever it stopped: weights, states, slots and counters."""
    train("points.nn", "--out", "whole")
    train("points.nn", "--epochs", str(epochs), "--out", "stopped")
    resumed = train("--resume", "stopped", "--epochs", "4")
    assert len(EPOCH_LINE.findall(resumed)) == 4 - epochs
    assert tensors(place / "stopped") == tensors(place / "whole")
    whole, stopped = ((place / name / "log.jsonl").read_text() for name in ("whole", "stopped"))
    epochs_of = [[json.loads(line) for line in text.splitlines() if '"epoch"' in line] for text in (whole, stopped)]
    for one, other in zip(*epochs_of, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert "nothing left to train" in train("--resume", "stopped")


def test_resuming_with_other_passes_is_reported(place: Path):
    train("points.nn", "--epochs", "1", "--out", "run")
    assert not nnc("train", "--resume", "run", "--epochs", "2").err
    resumed = nnc("train", "--resume", "run", "--epochs", "3", "--disable", "fusion")
    assert resumed.code == 0 and "passes fusion then, less now" in resumed.err


def test_flags_replace_entries(place: Path):
    settings = ["--set", "train.optimizer=Adam(lr=1e-3)", "--set", "shuffle=false", "--batch", "30", "--epochs", "1"]
    train("points.nn", *settings, "--data", "points.npz", "--out", "run")
    program = (place / "run/program.nn").read_text()
    for entry in ("optimizer = Adam(lr=0.001)", "shuffle = false", "batch = 30", "epochs = 1", 'data = "points.npz"'):
        assert re.search(re.escape(entry).replace(r"\ =\ ", r"\s+=\s+"), program), program
    assert nnc("check", "run/program.nn").code == 0


def test_timings(place: Path):
    out = train("points.nn", "--epochs", "1", "--timings", "--out", "run")
    phases = re.findall(r"^ *([a-z ]+?)  +[\d.]+ ms", out, re.MULTILINE)
    assert [name for name in phases if name in ("import", "parse", "elaborate", "generate", "data", "first step")] == [
        "import", "parse", "elaborate", "generate", "data", "first step"
    ]  # fmt: skip
    assert phases[-1] == "total"


def test_eval_of_a_run_and_of_a_file(place: Path):
    last = train("points.nn", "--out", "run").splitlines()[4]
    loss, accuracy = re.findall(r"/ (\d\.\d{4})", last)
    result, context = nnc("eval", "run").out.splitlines()
    assert result == f"loss: {loss}\taccuracy: {accuracy}"
    assert context.startswith('15 test examples of "points.npz" (drawn by seed 0), epoch 4 (last.safetensors)')
    best = nnc("eval", "run", "--best")
    assert best.code == 0 and float(best.out.split()[1]) <= float(loss)
    assert "(best.safetensors)" in best.out
    fresh = nnc("eval", "points.nn")
    assert fresh.out.endswith('15 test examples of "points.npz" (drawn by seed 0), initial weights of seed 0\n')
    assert fresh.code == 0 and fresh.out != nnc("eval", "points.nn", "--seed", "5").out


def test_a_batch_larger_than_the_data_needs_memory_for_the_data(place: Path):
    """Every command plans for the 75 rows to train on, and the step is that of a batch of 75."""
    limit = ("--memory-limit", "2GB")
    train("points.nn", "--batch", "1000000000", "--out", "large", *limit)
    train("points.nn", "--batch", "75", "--out", "all", *limit)
    one, other = (load_file(f"{name}/last.safetensors") for name in ("large", "all"))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert nnc("eval", "large", *limit).out.splitlines()[0] == nnc("eval", "all", *limit).out.splitlines()[0]
    arguments = ("--input", "points.npy", "--output", "scores.npy", *limit)
    assert nnc("predict", "large", *arguments).code == 0
    assert np.load("scores.npy").shape == (7, 3)
    with np.load("points.npz") as arrays:
        np.savez("more.npz", **{name: np.concatenate([array] * 3) for name, array in arrays.items()})
    os.replace("more.npz", "points.npz")  # more rows than what is in the cache was planned for
    assert nnc("train", "--resume", "large", "--epochs", "5", "--other-data", *limit).code == 0


def test_eval_names_the_best_epoch_if_the_last_is_worse(place: Path):
    settings = ("--set", "optimizer=SGD(lr=2)", "--set", "patience=2", "--set", "validation=0.2")
    train("points.nn", "--out", "run", "--epochs", "30", *settings)
    epochs = [json.loads(line) for line in (place / "run/log.jsonl").read_text().splitlines()[1:]]
    best = min(epochs, key=lambda epoch: epoch["validation"]["loss"])["epoch"]
    assert (
        best < len(epochs)
        and f"--best takes epoch {best}, which has the lowest validation loss" in nnc("eval", "run").out
    )
    assert f"epoch {best} (best.safetensors)\n" in nnc("eval", "run", "--best").out


def test_a_damaged_checkpoint_falls_back_with_a_warning(place: Path):
    third, last = train("points.nn", "--out", "run").splitlines()[3:5]
    checkpoint = place / "run/last.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    result = nnc("eval", "run")
    assert result.code == 0 and re.findall(r"\d\.\d{4}", result.out) == re.findall(r"/ (\d\.\d{4})", third)
    assert result.err.startswith('warning: "run/last.safetensors" is damaged or not a checkpoint: its size is wrong\n')
    assert result.err.endswith('  hint: "run/previous.safetensors" is used instead, the end of epoch 3\n')
    predicted = nnc("predict", "run", "--input", "points.npy", "--output", "scores.npy")
    assert predicted.code == 0 and predicted.err == result.err
    assert not (place / "run/damaged.safetensors").exists(), "evaluation changes nothing"
    resumed = nnc("train", "--resume", "run")
    assert resumed.code == 0 and resumed.err == result.err
    assert resumed.out.splitlines()[1].rpartition("  ")[0] == last.rpartition("  ")[0]
    assert (place / "run/damaged.safetensors").exists() and nnc("eval", "run").err == ""


def test_a_run_is_never_evaluated_with_its_first_weights(place: Path, monkeypatch: pytest.MonkeyPatch):
    """As happened if the folder of the run could not be read."""
    train("points.nn", "--out", "run")
    result = nnc("eval", "run")
    monkeypatch.setattr("os.path.isdir", lambda path: False)
    assert nnc("eval", "run") == result
    assert nnc("predict", "run", "--input", "points.npy", "--output", "scores.npy").code == 0
    scores = np.load("scores.npy")
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert nnc("predict", "run", "--input", "points.npy", "--output", "again.npy").code == 0
    assert np.array_equal(scores, np.load("again.npy"))


def test_predict(place: Path):
    train("points.nn", "--epochs", "1", "--out", "run")
    points = np.load("points.npy")
    assert nnc("predict", "run", "--input", "points.npy", "--output", "scores.npy").code == 0
    scores = np.load("scores.npy")
    assert scores.shape == (7, 3) and scores.dtype == np.float32
    np.savez("named.npz", point=points[:3])
    assert nnc("predict", "run", "--input", "named.npz", "--output", "named-scores.npz", "--best").code == 0
    with np.load("named-scores.npz") as archive:
        assert archive["output"] == pytest.approx(scores[:3], rel=1e-5)


SHAPES = """\
model M(x: f32[B, 3]) {
  param w: f32[3, 2] = ones
  y = x @ w
  return y, OUTPUT
}
fn first(y: f32[B, 2], z: f32[...], label: i32[B]) { return softmax_cross_entropy(y, label) }
train M { data = "x.npz"; loss = first; optimizer = SGD(lr=0.1); batch = 8; epochs = 1 }
"""


@pytest.mark.parametrize(
    "output, shape",
    [
        ("transpose(y, [1, 0])", (2, 20)),  # joined along B
        ("w", (3, 2)),  # the same in every batch
        ("mean(y, axes=[0])", None),
        ("reshape(y, [2 * B, 1])", None),
    ],
)
def test_predict_of_outputs_that_do_not_begin_with_the_batch(output: str, shape: tuple[int, ...] | None, place: Path):
    x = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    np.savez("x.npz", x=x, label=np.arange(20, dtype=np.int32) % 2)
    text = SHAPES.replace("  return y, OUTPUT", f"  z = {output}\n  return y, z")
    (place / "m.nn").write_text(text)
    train("m.nn", "--out", "run")
    np.savez("in.npz", x=x)
    result = nnc("predict", "run", "--input", "in.npz", "--output", "out.npz")
    if shape is None:
        assert result.code == 2 and 'output "z" cannot be joined from batches' in result.err
        np.savez("in.npz", x=x[:8])
        assert nnc("predict", "run", "--input", "in.npz", "--output", "out.npz").code == 0
        return
    assert result.code == 0, result.err
    with np.load("out.npz") as found:
        assert found["z"].shape == shape
        if output != "w":
            np.testing.assert_array_equal(found["z"], found["y"].T)


GENERATOR = """
model G(x: f32[B, 2]) { return Dense(1)(x) + random_uniform([B, 1]) }
fn loss(output: f32[B, 1], target: f32[B, 1]) { return mean((output - target) ** 2) }
train G { loss = loss; optimizer = SGD(lr=0.1); data = "data.npz"; batch = 4; epochs = 1 }
"""


def test_predict_with_a_seed(place: Path):
    (place / "generator.nn").write_text(GENERATOR)
    rows = np.zeros((10, 2), np.float32)
    np.savez("data.npz", x=rows, target=rows[:, :1])
    np.save("rows.npy", rows)
    train("generator.nn", "--out", "run")

    def predicted(*flags: str) -> np.ndarray:
        result = nnc("predict", "run", "--input", "rows.npy", "--output", "y.npy", *flags)
        assert (result.code, result.err) == (0, "")
        return np.load("y.npy")

    plain, seeded = predicted(), predicted("--seed", "5")
    assert len(np.unique(plain)) == 10, "batches of four do not repeat"
    assert np.array_equal(plain, predicted()) and np.array_equal(seeded, predicted("--seed", "5"))
    assert not np.isin(seeded, plain).any()
    for wrong in ("-1", "x", "2147483648"):
        result = nnc("predict", "run", "--input", "rows.npy", "--output", "y.npy", f"--seed={wrong}")
        assert result.code == 2 and f"expected: from 0 to 2147483647\n  found: {wrong}" in result.err


def test_predict_writes_an_output_named_file(place: Path):
    """numpy.savez has an argument of this name."""
    text = (place / "points.nn").read_text()
    (place / "points.nn").write_text(
        text.replace("return point |>", "file = point |>").replace("Dense(3)\n", "Dense(3)\n  return file\n")
    )
    train("points.nn", "--epochs", "1", "--out", "run")
    for suffix in ("npy", "npz"):
        assert nnc("predict", "run", "--input", "points.npy", "--output", f"scores.{suffix}").code == 0
    with np.load("scores.npz") as archive:
        assert archive.files == ["file"]
        assert np.array_equal(archive["file"], np.load("scores.npy"))


def test_summary_check_and_emit_of_a_run(place: Path):
    train("points.nn", "--epochs", "1", "--out", "run")
    assert "Total parameters: 99" in nnc("summary", "run").out
    assert nnc("check", "run").out == "run: Points: no errors, 99 parameters\n"
    assert "run/program.nn:2" in nnc("emit", "run", "--stage", "graph").out


def test_check_of_declarations_and_of_several_models(place: Path):
    (place / "parts.nn").write_text("layer L()(x: f32[B, n]) { return x }\nfn f(x) { return x }\n")
    assert nnc("check", "parts.nn").out == "parts.nn: L, f: no errors, no model\n"
    (place / "two.nn").write_text(
        'import "parts.nn"\nmodel A(x: f32[B, 4]) { return L(x) }\nmodel C(x: f32[B, 2]) { return f(x) }\n'
    )
    assert nnc("check", "two.nn").out == "two.nn: A: no errors, 0 parameters\ntwo.nn: C: no errors, 0 parameters\n"
    assert nnc("summary", "two.nn", "--model", "C").out.startswith("Model C\n")


def test_one_of_several_models_is_trained(place: Path):
    text = (place / "points.nn").read_text()
    (place / "two.nn").write_text(text + text.replace("Points", "Others").replace("Dense(8)", "Dense(5)"))
    train("two.nn", "--model", "Others", "--epochs", "1", "--out", "run")
    assert "train Points" not in (place / "run/program.nn").read_text()
    assert nnc("eval", "run").code == 0
    assert nnc("predict", "run", "--input", "points.npy", "--output", "scores.npy").code == 0
    assert "step 2" in train("--resume", "run", "--epochs", "2")


@pytest.mark.parametrize("stage", STAGES)
def test_emit(stage: str):
    """Every stage is printed, with the right beginning; the golden files test more of them."""
    text = nnc("emit", ROOT / "models/softmax.nn", "--stage", stage).out
    beginning = {"tree": "Program file=", "plan": "plan init", "source": "# "}.get(stage, "graph init(")
    assert text.startswith(beginning) and text.endswith("\n") and not text.endswith("\n\n")
    if stage == "source":
        compile(text, "emitted", "exec")


# Models that come with nnc --------------------------------------------------------------------------------------------


def test_no_arguments_print_the_help():
    alone = nnc()
    assert alone.code == 0 and alone == nnc("--help")


def test_a_shipped_model_is_named_without_its_path(place: Path):
    """Trained, evaluated and shown from any folder; positions name a short file."""
    train("softmax", "--data", "digits", "--epochs", "1", "--out", "run")
    assert nnc("eval", "run").code == 0
    assert nnc("check", "softmax").out == "softmax: Softmax: no errors, 7,850 parameters\n"
    assert nnc("emit", "softmax").out.startswith("# softmax.nn: model Softmax, generated by nnc\n")
    assert "softmax.nn:6:19" in nnc("plan", "softmax").out
    assert nnc("summary", "resnet50").out.startswith("Model ResNet50\n")


def test_a_file_of_that_name_comes_first(place: Path):
    (place / "cnn").write_text((place / "points.nn").read_text())
    assert nnc("check", "cnn").out == "cnn: Points: no errors, 99 parameters\n"
    train("points.nn", "--epochs", "1", "--out", "mlp")
    assert nnc("check", "mlp").out == "mlp: Points: no errors, 99 parameters\n"


def test_a_shipped_model_and_its_file_share_no_cache_entry(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Generated code names the file as the command did."""
    monkeypatch.setenv("NNC_CACHE", str(place / "cache"))
    arguments = ("--data", "digits", "--epochs", "1", "--quiet", "--timings", "--out")
    caches = [
        train(name, *arguments, str(number)).splitlines()[0]
        for number, name in enumerate(["softmax", shipped()["softmax"], "softmax"])
    ]
    assert caches[:2] == ["cache: miss, no entry"] * 2 and caches[2].startswith("cache: hit ")


def test_shipped_programs_import_nothing():
    """An import would be searched for in the folder of the user."""
    assert {path.stem for path in (*ROOT.glob("models/*.nn"), *ROOT.glob("examples/*.nn"))} == set(shipped())
    assert not [path for path in shipped().values() if re.search(r"^import ", path.read_text(), re.MULTILINE)]


def test_the_readme_lists_the_commands():
    rows = re.findall(r"^\| `([a-z-]+) ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(rows) == set(COMMANDS)
