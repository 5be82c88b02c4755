"""The values and rows of a run: floats and labels, rows for testing and validation, resuming, moved folders."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.training.run_folder import RunFolder
from tests.cli.pixel_runs import IMAGES, LABELS, PROGRAM, done, loss_of, place, predicted, recorded, save  # noqa: F401
from tests.cli.running import nnc

FORMER = "has no data.json"


# Floats ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 0.7, 'row 0 of array "label" in "pixels.npz" is no value of i32'),
        (np.where(np.arange(60) == 33, -0.9, LABELS), "row 33 of array"),
        (np.where(np.arange(60) == 45, np.nan, LABELS), 'row 5 of array "label_test"'),
        (np.where(np.arange(60) == 33, 2.0, LABELS), 'row 33 of array "label" (training) is not a class of the model'),
        (np.where(np.arange(60) == 33, -1.0, LABELS), 'row 33 of array "label" (training) is not a class of the model'),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_labels_that_are_no_classes(labels: np.ndarray, message: str, dtype: type):
    save("pixels.npz", IMAGES, labels.astype(dtype))
    error = done("train", "pixels.nn", "--out", "run", code=2).err
    assert message in error and error.count("error:") == 1
    assert not Path("run").exists()


def test_whole_float_labels_train_as_whole_numbers():
    done("train", "pixels.nn", "--out", "whole", "--quiet")
    save("pixels.npz", IMAGES, LABELS.astype(np.float64))
    done("train", "pixels.nn", "--out", "run", "--quiet")
    assert recorded()["label"]["stored"] == "f64"
    assert loss_of("run") == loss_of("whole")


def test_f64_inputs_keep_their_values():
    program = PROGRAM.replace("image: f32[B, 3, 3]", "image: f64[B, 3, 3]").replace(
        "image |>", 'cast(log(1 + image) / 700, "f32") |>'
    )
    Path("pixels.nn").write_text(program)
    save("pixels.npz", np.full((60, 3, 3), 1e300))
    done("train", "pixels.nn", "--out", "run", "--quiet")
    assert recorded()["image"] | {"kind": ""} == {
        "kind": "", "stored": "f64", "scale": 1.0, "chosen": False, "low": 1e300, "high": 1e300, "classes": None
    }  # fmt: skip
    outputs, _ = predicted(np.full((3, 3, 3), 1e300))
    assert np.isfinite(outputs).all()
    assert outputs[0] != pytest.approx(predicted(np.full((3, 3, 3), 1e200))[0][0])


def test_f64_beyond_f32_is_an_error():
    images = IMAGES / 255
    images[7, 2, 2] = 1e300
    save("pixels.npz", images)
    error = done("train", "pixels.nn", "--out", "run", code=2).err
    assert 'row 7 of array "image" in "pixels.npz" is too large for f32' in error and "found: 1e+300" in error
    save("pixels.npz", IMAGES / 255)
    done("train", "pixels.nn", "--out", "run", "--quiet")
    np.save("x.npy", images)
    error = done("predict", "run", "--input", "x.npy", "--output", "y.npy", code=2).err
    assert 'row 7 of array "image" in "x.npy"' in error


def test_predictions_take_whole_floats_for_whole_numbers():
    Path("words.nn").write_text("""
model Words(word: i32[B]) { return word |> Embedding(4, 3) |> Dense(2) }
train Words { data = "words.npz"; loss = softmax_cross_entropy; optimizer = SGD(lr=0.1) }
""")
    words = np.arange(60) % 4
    np.savez("words.npz", word=words.astype(np.float32), label=LABELS)
    done("train", "words.nn", "--out", "run", "--quiet")
    expected, _ = predicted(words)
    assert np.array_equal(predicted(words.astype(np.float64))[0], expected)
    assert np.array_equal(predicted(words % 2 == 1)[0], expected[words % 2])
    np.save("x.npy", words + 0.5)
    error = done("predict", "run", "--input", "x.npy", "--output", "y.npy", code=2).err
    assert 'row 0 of array "word" in "x.npy" is no value of i32' in error


INTEGERS = """
model Counts(n: i32[B], m: u8[B], flag: bool[B]) {
  return concat(reshape(cast(n, "f32"), [B, 1]), reshape(cast(m, "f32"), [B, 1]), reshape(cast(flag, "f32"), [B, 1]))
    |> Dense(2)
}
train Counts { data = "counts.npz"; loss = softmax_cross_entropy; optimizer = SGD(lr=1e-4) }
"""


@pytest.mark.parametrize(("name", "value"), [("n", 2**40), ("m", -3), ("m", 256)])
def test_whole_numbers_beyond_the_input_are_errors(name: str, value: int):
    Path("counts.nn").write_text(INTEGERS)
    counts = {"n": np.arange(60), "m": np.arange(60), "flag": LABELS.astype(np.int64)}
    np.savez("counts.npz", **counts, label=LABELS)  # pyright: ignore[reportArgumentType]
    done("train", "counts.nn", "--out", "run", "--quiet")
    done("predict", "run", "--input", "counts.npz", "--output", "y.npy")
    counts[name][17] = value
    np.savez("bad.npz", **counts, label=LABELS)  # pyright: ignore[reportArgumentType]
    for command in (
        ("train", "counts.nn", "--data", "bad.npz", "--out", "bad"),
        ("eval", "run", "--data", "bad.npz"),
        ("predict", "run", "--input", "bad.npz", "--output", "y.npy"),
    ):
        error = done(*command, code=2).err
        assert f'row 17 of array "{name}" in "bad.npz" is no value of' in error and f"found: {value}\n" in error


def test_predictions_read_only_the_inputs_of_the_model():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    expected, _ = predicted(IMAGES[:40])
    for path in ("pixels.npz", "more.npz"):  # with labels, and test arrays of another number of rows
        done("predict", "run", "--input", path, "--output", "y.npy")
        assert np.array_equal(np.load("y.npy"), expected)
        np.savez("more.npz", image=IMAGES[:40], label=np.zeros(3), weight=np.float64(1e300))


# Rows to test with, and for validation --------------------------------------------------------------------------------


def sorted_by_class() -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(LABELS, kind="stable")
    np.savez("pixels.npz", image=IMAGES[order], label=LABELS[order])
    return IMAGES[order], LABELS[order]


def test_data_that_are_sorted_by_class_are_split_by_the_seed():
    sorted_by_class()
    first = done("train", "pixels.nn", "--out", "run", "--seed", "3", "--epochs", "60")
    assert first.out.startswith(
        "50 rows to train, 10 to test (drawn by seed 3); 2 classes; image u8 / 255, label u8; 20 parameters\n"
    )
    data = json.loads(Path("run/data.json").read_text())
    assert (data["rows"], data["drawn"], data["seed"]) == ({"training": 50, "test": 10}, True, 3)
    result = done("eval", "run")
    assert '10 test examples of "pixels.npz" (drawn by seed 3)' in result.out
    assert float(re.findall(r"accuracy: (\S+)", result.out)[0]) > 0.5
    last = json.loads(Path("run/log.jsonl").read_text().splitlines()[-1])
    assert result.out.startswith(f"loss: {last['test']['loss']:.4f}")
    assert done("eval", "run", "--seed", "5").out == result.out  # the split is that of the run


def test_a_resumed_run_has_the_same_rows():
    sorted_by_class()
    settings = ("--set", "validation=0.2", "--set", "patience=3", "--epochs")
    done("train", "pixels.nn", "--out", "whole", *settings, "6", "--quiet")
    first = done("train", "pixels.nn", "--out", "run", *settings, "3")
    assert "40 rows to train, 10 for validation, 10 to test (drawn by seed 0)" in first.out
    assert re.search(r"^loss: \S+ / \S+ / \S+\taccuracy: \S+ / \S+ / \S+\tstep 1  ", first.out, re.MULTILINE)
    assert "(validation loss " in first.out
    second = done("train", "--resume", "run", "--epochs", "6")
    assert second.out.splitlines()[0] == first.out.splitlines()[0]
    logs = [[json.loads(line) for line in Path(run, "log.jsonl").read_text().splitlines()] for run in ("whole", "run")]
    one, other = ([{**record, "seconds": 0} for record in log if "epoch" in record] for log in logs)
    assert one == other and set(one[0]) == {"epoch", "train", "test", "validation", "seconds"}
    assert done("verify-resume", "pixels.nn", *settings[:4], "--epochs", "2").out.count("bit-exact") == 1


def test_the_best_epoch_goes_by_the_validation_rows():
    sorted_by_class()
    Path("pixels.nn").write_text(PROGRAM.replace("SGD(lr=0.1)", "SGD(lr=3)"))
    done("train", "pixels.nn", "--out", "run", "--set", "validation=0.3", "--epochs", "12", "--quiet")
    records = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()[1:]]
    best = min(records, key=lambda record: record["validation"]["loss"])["epoch"]
    assert best != min(records, key=lambda record: record["test"]["loss"])["epoch"]
    assert f"epoch {best} (best.safetensors)" in done("eval", "run", "--best").out


def test_runs_from_before_data_json_keep_the_last_rows():
    images, labels = sorted_by_class()
    done("train", "pixels.nn", "--out", "run", "--quiet")
    Path("run/data.json").unlink()
    result = done("eval", "run")
    assert "(the last rows)" in result.out
    np.savez(
        "last.npz",
        image=images[:50] * np.float32(1),
        label=labels[:50],
        image_test=images[50:] * np.float32(1),
        label_test=labels[50:],
    )
    assert done("eval", "run", "--data", "last.npz").out.splitlines()[0] == result.out.splitlines()[0]


def test_errors_name_rows_of_the_file():
    labels = LABELS.copy()
    labels[41] = 7
    np.savez("pixels.npz", image=IMAGES, label=labels)
    for settings in ((), ("--set", "validation=0.5"), ("--seed", "9")):
        assert 'row 41 of array "label"' in done("train", "pixels.nn", *settings, "--out", "run", code=2).err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "split is not valid"),
        ({"seed": 2**31}, "split is not valid"),
        ({"drawn": 1}, "split is not valid"),
        ({"validation": 2.0}, "rows are not valid"),
        ({"rows": {"training": 40}}, "rows are not valid"),
        ({"rows": {"training": 0, "test": 1}}, "rows are not valid"),
        ({"rows": [40, 20]}, "rows are not valid"),
        ({"data": 3}, "data or arrays are not valid"),
        ({"data": "a\n"}, "data or arrays are not valid"),
    ],
)
def test_a_changed_split_is_an_error(change: dict[str, object], message: str):
    done("train", "pixels.nn", "--out", "run", "--quiet")
    values = json.loads(Path("run/data.json").read_text())
    Path("run/data.json").write_text(json.dumps({**values, **change}))
    assert message in done("eval", "run", code=2).err


# Resuming, and other folders ------------------------------------------------------------------------------------------


def files(run: str = "run") -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path(run).iterdir()}


def test_nothing_is_written_if_nothing_is_left_to_train():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    before = files()
    for more in ((), ("--data", "pixels.npz"), ("--epochs", "1"), ("--epochs", "2")):
        assert "nothing left to train" in done("train", "--resume", "run", *more).out
        assert files() == before


def test_a_damaged_log_is_repaired_even_then():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    lines = Path("run/log.jsonl").read_text().splitlines(keepends=True)
    Path("run/log.jsonl").write_text("".join(lines[:-1]))
    done("train", "--resume", "run", "--quiet")
    assert Path("run/log.jsonl").read_text() == "".join(lines)


def test_other_data_are_refused_unless_asked_for():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    before = files()
    save("other.npz", IMAGES[::-1].copy(), LABELS[::-1].copy())
    error = done("train", "--resume", "run", "--data", "other.npz", "--epochs", "3", code=2).err
    assert "these are not the data that the run" in error and "with other values" in error and "--other-data" in error
    np.savez("fewer.npz", image=IMAGES[:30], label=LABELS[:30], image_test=IMAGES[40:], label_test=LABELS[40:])
    error = done("train", "--resume", "run", "--data", "fewer.npz", "--epochs", "3", code=2).err
    assert "40 training, 20 test rows" in error and 'found: "fewer.npz", 30 training, 20 test rows\n' in error
    save("pixels.npz", IMAGES, 1 - LABELS)  # the same file with other contents
    assert "with other values" in done("train", "--resume", "run", "--epochs", "3", code=2).err
    assert files() == before
    result = done("train", "--resume", "run", "--data", "other.npz", "--epochs", "3", "--other-data")
    assert 'continues after epoch 2 with epochs 2, now 3; data "pixels.npz", now "other.npz"\n' in result.out
    data = json.loads(Path("run/data.json").read_text())
    assert data["data"] == str(Path("other.npz").resolve())
    assert data["fingerprint"] != json.loads(before["data.json"][0])["fingerprint"]
    done("train", "--resume", "run", "--epochs", "4")
    error = done("train", "pixels.nn", "--other-data", code=2).err
    assert "--other-data belongs to --resume" in error


def test_evaluation_warns_if_the_data_of_the_run_have_changed():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    changed = 'warning: "pixels.npz" has changed since the run was trained'
    save("other.npz", IMAGES[::-1].copy())
    for unchanged in ((), ("--data", "pixels.npz"), ("--data", "other.npz")):
        assert not done("eval", "run", *unchanged).err
    save("pixels.npz", IMAGES, 1 - LABELS)
    for arguments in ((), ("--data", "pixels.npz")):
        warnings = done("eval", "run", *arguments).err
        assert changed in warnings and "40 training, 20 test rows with other values" in warnings
    np.savez("pixels.npz", image=IMAGES, label=LABELS)
    warnings = done("eval", "run").err
    assert "found: 50 training, 10 test rows" in warnings and "rows that were for training may" in warnings


def test_the_same_data_may_be_stored_elsewhere():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    save("same.npz", IMAGES.astype(np.int64), LABELS.astype(np.float32))
    result = done("train", "--resume", "run", "--data", "same.npz", "--epochs", "3")
    assert 'data "pixels.npz", now "same.npz"' in result.out


def test_a_file_may_change_only_what_keeps_figures_comparable():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    Path("pixels.nn").write_text(PROGRAM.replace("epochs    = 2", "epochs    = 3"))
    assert "continues after epoch 2 with epochs 2, now 3\n" in done("train", "pixels.nn", "--resume", "run").out
    for change in ("batch     = 4", "loss      = mean_squared_error", "seed      = 1", "scale     = none"):
        name = change.split()[0]
        text = re.sub(rf"{name} .*\n", "", PROGRAM).replace("epochs    = 2", f"epochs    = 4\n  {change}")
        Path("pixels.nn").write_text(text)
        result = nnc("train", "pixels.nn", "--resume", "run")
        assert result.code == 2
        if name != "loss":
            assert "was written by another program" in result.err
            assert f"found: {' '.join(change.split())}" in result.err


def test_runs_work_from_every_folder_and_after_they_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done("train", "pixels.nn", "--out", "runs/one", "--quiet")
    np.save("x.npy", IMAGES)
    expected = loss_of("runs/one")
    assert json.loads(Path("runs/one/data.json").read_text())["data"] == str(tmp_path / "pixels.npz")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.savez("pixels.npz", image=IMAGES[:4], label=LABELS[:4])  # not the data of the run
    run = str(tmp_path / "runs" / "one")
    assert loss_of(run) == expected
    done("predict", run, "--input", "../x.npy", "--output", "y.npy")
    assert done("train", "--resume", run, "--epochs", "3", "--quiet").code == 0
    expected = loss_of(run)
    Path("pixels.npz").unlink()
    moved = tmp_path / "project"
    moved.mkdir()
    (tmp_path / "runs").rename(moved / "runs")
    (tmp_path / "pixels.npz").rename(moved / "pixels.npz")
    assert loss_of(str(moved / "runs/one")) == expected  # found two folders above the run
    assert done("train", "--resume", "../project/runs/one", "--epochs", "4", "--quiet").code == 0
    (moved / "pixels.npz").rename(tmp_path / "elsewhere" / "other.npz")
    error = done("eval", str(moved / "runs/one"), code=2).err
    assert "are not there any more" in error and "hint: --data PATH" in error and str(tmp_path) in error
    assert loss_of(str(moved / "runs/one"), "--data", "other.npz") <= expected
    done("predict", str(moved / "runs/one"), "--input", "../x.npy", "--output", "y.npy")  # needs no data


def test_a_run_that_is_being_trained_can_be_read():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    with RunFolder(Path("run"), "").in_use():
        loss_of("run")
        predicted(IMAGES)
        assert "is in use" in done("train", "--resume", "run", "--epochs", "3", code=2).err


@pytest.mark.parametrize("settings", [(), ("--set", "validation=0.4"), ("--seed", "4")])
def test_indices_outside_their_table_name_the_row_of_the_file(settings: tuple[str, ...]):
    Path("words.nn").write_text("""
model Words(word: i32[B]) { return word + 1 |> Embedding(5, 3) |> Dense(2) }
train Words { data = "words.npz"; loss = softmax_cross_entropy; optimizer = SGD(lr=0.1) }
""")
    words = np.arange(60) % 4
    words[17] = 4
    np.savez("words.npz", word=words, label=LABELS)
    assert "row 17 of the " in done("train", "words.nn", *settings, "--out", "run", code=2).err
    done("emit", "words.nn", *settings, "--standalone", "words.py")
    script = subprocess.run([sys.executable, "words.py"], capture_output=True, text=True)
    assert script.returncode == 1 and "row 17 of the " in script.stderr


def test_the_report_of_a_diverged_step_names_rows_of_the_file():
    Path("lines.nn").write_text("""
model Lines(x: f32[B]) { return reshape(x, [B, 1]) |> Dense(1) |> Reshape([]) }
fn error_of_line(prediction: f32[B], y: f32[B]) { return mean_squared_error(prediction, y) }
train Lines { data = "lines.npz"; loss = error_of_line; optimizer = SGD(lr=0.001); batch = 1 }
""")
    numbers = np.linspace(0, 1, 60, dtype=np.float32)
    for row in (17, 43):  # one of them is for training with this seed, or both
        y = numbers.copy()
        y[row] = 3e38
        np.savez("lines.npz", x=numbers, y=y)
        message = done("train", "lines.nn", "--out", f"run-{row}", code=2).err
        assert re.search(rf"examples {row} of the (training|test) data", message)
        dump = next(Path(f"run-{row}").glob("numerics-*"))
        assert re.search(rf"examples {row} of the (training|test) data", done("replay", str(dump)).out)


def test_predictions_do_not_overwrite_their_input():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    np.save("x.npy", IMAGES)
    before = Path("x.npy").read_bytes()
    refused = done("predict", "run", "--input", "x.npy", "--output", "./x.npy", code=2).err
    assert "--output would overwrite --input" in refused and Path("x.npy").read_bytes() == before
    missing = done("predict", "run", "--input", "missing.npy", "--output", "x.npy", code=2).err
    assert "missing.npy" in missing and "cannot write" not in missing and Path("x.npy").read_bytes() == before


def test_a_folder_that_is_no_run_is_named():
    Path("empty").mkdir()
    assert '"empty" is not a run folder' in done("eval", "empty", code=2).err
