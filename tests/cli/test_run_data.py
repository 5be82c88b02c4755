"""What arrays mean belongs to the run: data.json, scales, and warnings about values out of range."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.training.run_folder import RunFolder
from tests.cli.running import Result, nnc

PROGRAM = """\
model Pixels(image: f32[B, 3, 3]) { return image |> Flatten |> Dense(2) }

train Pixels {
  data      = "pixels.npz"
  loss      = softmax_cross_entropy
  metrics   = [accuracy]
  optimizer = SGD(lr=0.1)
  batch     = 8
  epochs    = 2
}
"""
IMAGES = np.random.default_rng(1).integers(0, 256, (60, 3, 3)).astype(np.uint8)
LABELS = (IMAGES[:, 1, 1] > 127).astype(np.uint8)
FORMER = "has no data.json"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a program and images of bytes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pixels.nn").write_text(PROGRAM)
    save("pixels.npz", IMAGES)
    return tmp_path


def save(path: str, images: np.ndarray, labels: np.ndarray = LABELS) -> None:
    """Images with test rows, which are the last 20."""
    np.savez(path, image=images[:40], label=labels[:40], image_test=images[40:], label_test=labels[40:])


def done(*arguments: str, code: int = 0) -> Result:
    result = nnc(*arguments)
    assert result.code == code, result.err
    return result


def loss_of(*arguments: str) -> float:
    return float(re.findall(r"^loss: (\S+)", done("eval", *arguments).out, re.MULTILINE)[0])


def predicted(images: np.ndarray, run: str = "run") -> tuple[np.ndarray, str]:
    """The outputs for images, and the warnings."""
    np.save("x.npy", images)
    result = done("predict", run, "--input", "x.npy", "--output", "y.npy")
    return np.load("y.npy"), result.err


def recorded(run: str = "run") -> dict[str, dict[str, object]]:
    return json.loads(Path(run, "data.json").read_text())["arrays"]


def test_bytes_are_pixels_in_every_data_set():
    done("train", "pixels.nn", "--out", "run")
    assert recorded()["image"] == {
        "kind": "input", "stored": "u8", "scale": 1 / 255, "chosen": False,
        "low": IMAGES[:40].min() / 255, "high": IMAGES[:40].max() / 255, "classes": None,
    }  # fmt: skip
    assert recorded()["label"] == {
        "kind": "target", "stored": "u8", "scale": 1.0, "chosen": False, "low": 0.0, "high": 1.0, "classes": 2
    }  # fmt: skip
    save("floats.npz", IMAGES / np.float32(255))
    done("train", "pixels.nn", "--data", "floats.npz", "--out", "floats")
    assert loss_of("run") == pytest.approx(loss_of("floats"), abs=2e-4)


KINDS = {
    "u8": IMAGES,
    "i32": IMAGES.astype(np.int32),
    "i64": IMAGES.astype(np.int64),
    "u16": IMAGES.astype(np.uint16),
    "floats": IMAGES / np.float32(255),
}


@pytest.mark.parametrize("kind", KINDS)
def test_later_arrays_mean_what_the_input_meant_in_training(kind: str):
    done("train", "pixels.nn", "--out", "run", "--quiet")
    expected, _ = predicted(IMAGES)
    outputs, warnings = predicted(KINDS[kind])
    assert outputs == pytest.approx(expected, abs=1e-6) and not warnings
    before = loss_of("run")
    save("other.npz", KINDS[kind])
    assert loss_of("run", "--data", "other.npz") == pytest.approx(before, abs=2e-4)


@pytest.mark.parametrize(
    ("stored", "given"),
    [(IMAGES.astype(np.int32), IMAGES), (IMAGES.astype(np.float32), IMAGES), (IMAGES / np.float32(255), IMAGES)],
    ids=["bytes after i32", "bytes after floats to 255", "bytes after floats to 1"],
)
def test_bytes_after_training_on_other_kinds(stored: np.ndarray, given: np.ndarray):
    save("pixels.npz", stored)
    done("train", "pixels.nn", "--set", "train.optimizer=SGD(lr=1e-6)", "--out", "run", "--quiet")
    expected, _ = predicted(stored)
    outputs, warnings = predicted(given)
    assert outputs == pytest.approx(expected, rel=1e-4, abs=1e-4) and not warnings


def test_values_out_of_the_range_of_training_are_reported():
    done("train", "pixels.nn", "--out", "run", "--quiet")
    _, warnings = predicted(IMAGES.astype(np.float32))
    assert 'warning: array "image" (given) has values far from those' in warnings
    assert f"found: values from {IMAGES.min()} to {IMAGES.max()} (f32)" in warnings
    assert "hint: the run divided bytes by 255" in warnings
    save("other.npz", IMAGES.astype(np.float32))
    assert '"image" (test)' in done("eval", "run", "--data", "other.npz").err
    assert not predicted(np.zeros((3, 3, 3), np.uint8))[1]
    assert "store as floats what is not to be scaled" in predicted(np.ones((3, 3, 3), np.uint8))[1]
    assert "from nan to nan" in predicted(np.full((3, 3, 3), np.nan, np.float32))[1]


@pytest.mark.parametrize(
    "given", [IMAGES / np.float32(255), IMAGES / 127.5 - 1, IMAGES > 127], ids=["0…1", "-1…1", "bool"]
)
@pytest.mark.parametrize("stored", [np.float32, np.int32])
def test_fractions_are_reported_if_the_run_saw_up_to_255(stored: type, given: np.ndarray):
    save("pixels.npz", IMAGES.astype(stored))
    done("train", "pixels.nn", "--set", "train.optimizer=SGD(lr=1e-6)", "--out", "run", "--quiet")
    assert 'array "image" (given) has values far from those' in predicted(given)[1]
    save("other.npz", given)
    assert 'array "image" (test) has values far from those' in done("eval", "run", "--data", "other.npz").err
    assert not predicted(np.zeros((3, 3, 3), np.float32))[1]
    assert not predicted(np.full((3, 3, 3), 3, np.float32))[1]


@pytest.mark.parametrize("largest", [1, 9, 25])
def test_bytes_that_are_no_pixels_are_reported_when_training_starts(largest: int):
    save("pixels.npz", (IMAGES % (largest + 1)).astype(np.uint8))
    warning = f'array "image" has bytes up to {largest} and is divided by 255, as pixels are'
    result = done("train", "pixels.nn", "--out", "run", "--quiet")
    assert warning in result.err and "scale = none" in result.err
    assert not done("train", "--resume", "run", "--epochs", "3", "--quiet").err
    for scale in ("none", "1/255"):
        assert not done("train", "pixels.nn", "--set", f"train.scale={scale}", "--out", scale[0], "--quiet").err
    save("pixels.npz", (IMAGES > 127))
    assert not done("train", "pixels.nn", "--out", "bool", "--quiet").err


def test_warnings_name_the_scale_that_the_train_block_gives():
    done("train", "pixels.nn", "--set", "train.scale=0.5", "--out", "run", "--quiet")
    warnings = predicted(IMAGES / np.float32(255))[1]
    assert "hint: the train block of the run gives the scale 0.5, for these values as well" in warnings


def test_training_warns_of_test_rows_on_another_scale():
    images = IMAGES / np.float32(255)
    np.savez("pixels.npz", image=images, label=LABELS, image_test=images * 255, label_test=LABELS)
    assert '"image" (test) has values far from' in done("train", "pixels.nn", "--out", "run").err


@pytest.mark.parametrize(
    ("scale", "factor"),
    [("none", 1), ("0.5", 0.5), ("-1/255", -1 / 255), ("arrays(image=0.01)", 0.01), ("arrays(image=none)", 1)],
)
def test_the_train_block_chooses_another_scale(scale: str, factor: float):
    done("train", "pixels.nn", "--set", f"train.scale={scale}", "--out", "run", "--quiet")
    entry = recorded()["image"]
    assert entry["scale"] == pytest.approx(factor) and entry["chosen"] is True
    assert re.search(r"^  scale\s+= ", Path("run/program.nn").read_text(), re.MULTILINE)
    expected, _ = predicted(IMAGES)
    outputs, _ = predicted(IMAGES.astype(np.float32))  # a scale that is given is that of every kind
    assert outputs == pytest.approx(expected, rel=1e-5, abs=1e-5)
    before = loss_of("run")
    save("other.npz", IMAGES.astype(np.float32))
    assert loss_of("run", "--data", "other.npz") == pytest.approx(before, rel=1e-3)


def test_a_resumed_run_keeps_the_scale():
    done("train", "pixels.nn", "--out", "whole", "--epochs", "4", "--quiet")
    done("train", "pixels.nn", "--out", "run", "--quiet")
    save("same.npz", IMAGES.astype(np.int32))
    before = recorded()
    done("train", "--resume", "run", "--data", "same.npz", "--epochs", "4", "--quiet")
    assert loss_of("run", "--data", "same.npz") == pytest.approx(loss_of("whole"), abs=2e-4)
    assert recorded() == before


def test_runs_from_before_data_json_keep_the_former_rule():
    save("floats.npz", IMAGES.astype(np.float32))
    done(
        "train", "pixels.nn", "--data", "floats.npz", "--set", "train.optimizer=SGD(lr=1e-6)", "--out", "run", "--quiet"
    )
    Path("run/data.json").unlink()
    expected, warnings = predicted(IMAGES.astype(np.float32))
    assert warnings.count(FORMER) == 1
    outputs, warnings = predicted(IMAGES)
    assert warnings.count(FORMER) == 1 and outputs == pytest.approx(expected, rel=1e-5)
    result = done("eval", "run", "--data", "pixels.npz")
    assert result.err.count(FORMER) == 1
    assert done("train", "--resume", "run", "--epochs", "3", "--quiet").err.count(FORMER) == 1


BROKEN = {
    "not JSON": ("{", "is damaged"),
    "NaN": ('{"format": NaN}', "is damaged"),
    "a name that occurs twice": ('{"format": 1, "format": 1}', "is damaged"),
    "a newer format": ('{"format": 2}', "has another format"),
    "nothing in it": ('{"format": 1}', "is damaged"),
    "a list": ("[1]", "is damaged"),
    "deep": ("[" * 100_000, "is damaged"),
    "a long number": ('{"format": 1' + "0" * 5000 + "}", "is damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("command", ["eval", "predict", "train"])
def test_a_damaged_data_json_is_an_error(name: str, command: str):
    done("train", "pixels.nn", "--out", "run", "--quiet")
    text, message = BROKEN[name]
    Path("run/data.json").write_text(text)
    np.save("x.npy", IMAGES)
    arguments = {
        "eval": ["eval", "run"],
        "predict": ["predict", "run", "--input", "x.npy", "--output", "y.npy"],
        "train": ["train", "--resume", "run", "--epochs", "3"],
    }[command]
    error = done(*arguments, code=2).err
    assert message in error and '"run/data.json"' in error and error.count("error:") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays["image"].update(scale=0.0), "contents are not valid"),
        (lambda arrays: arrays["image"].update(scale="1"), "contents are not valid"),
        (lambda arrays: arrays["image"].update(low=2.0), "contents are not valid"),
        (lambda arrays: arrays["image"].update(stored="U8"), "contents are not valid"),
        (lambda arrays: arrays["label"].update(classes=0), "contents are not valid"),
        (lambda arrays: arrays["label"].update(more=1), "contents are not valid"),
        (lambda arrays: arrays.update(image=None), "contents are not valid"),
        (lambda arrays: arrays.pop("image"), "does not belong to the program of the run"),
        (lambda arrays: arrays.update(other=arrays["image"]), "does not belong to the program of the run"),
    ],
)
def test_a_changed_data_json_is_an_error(change, message: str):
    done("train", "pixels.nn", "--out", "run", "--quiet")
    values = json.loads(Path("run/data.json").read_text())
    change(values["arrays"])
    Path("run/data.json").write_text(json.dumps(values))
    assert message in done("eval", "run", code=2).err


def test_several_inputs_with_their_own_scales():
    Path("two.nn").write_text("""
model Two(image: f32[B, 3, 3], age: f32[B], word: i32[B], seen: f32[B]) {
  hidden = concat(Flatten(image), reshape(age, [B, 1]), reshape(seen, [B, 1]), Embedding(300, 2)(word))
  return hidden |> Dense(2)
}
train Two {
  data = "two.npz"; loss = softmax_cross_entropy; optimizer = SGD(lr=0.01)
  scale = arrays(age = 0.01)
}
""")
    age, word, seen = IMAGES[:, 0, 0] % 100, IMAGES[:, 0, 1], LABELS.astype(bool)
    np.savez("two.npz", image=IMAGES, age=age, word=word, seen=seen, label=LABELS)
    done("train", "two.nn", "--out", "run", "--quiet")
    scales = {name: entry["scale"] for name, entry in recorded().items()}
    assert scales == {"image": 1 / 255, "age": 0.01, "word": 1.0, "seen": 1.0, "label": 1.0}
    assert recorded()["word"]["classes"] == 300


def test_an_input_that_is_also_the_target_has_one_scale():
    Path("auto.nn").write_text("""
model Auto(image: f32[B, 9]) { return image |> Dense(9) }
fn rebuilt(output: f32[B, n], image: f32[B, n]) { return mean(square(output - image)) }
train Auto { data = "pixels.npz"; loss = rebuilt; optimizer = SGD(lr=0.01) }
""")
    done("train", "auto.nn", "--out", "run", "--quiet")
    assert {name: entry["scale"] for name, entry in recorded().items()} == {"image": 1 / 255}
    assert loss_of("run") < 3


def test_float_targets_are_not_pixels():
    Path("regression.nn").write_text(
        """
model Mean(image: f32[B, 9]) { return image |> Dense(1) |> Flatten |> reshape([B]) }
fn error(output: f32[B], label: f32[B]) { return mean(square(output - label)) }
train Mean { data = "pixels.npz"; loss = error; optimizer = SGD(lr=0.01) }
""".replace("|> Flatten |> reshape([B])", "|> Flat").replace(
            "model", "fn Flat(x: f32[B, 1]) { return reshape(x, [B]) }\nmodel", 1
        )
    )
    done("train", "regression.nn", "--out", "run", "--quiet")
    assert recorded()["label"]["scale"] == 1.0 and recorded()["label"]["high"] == 1.0


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


def test_runs_work_from_every_folder_and_after_they_moved(place: Path, monkeypatch: pytest.MonkeyPatch):
    done("train", "pixels.nn", "--out", "runs/one", "--quiet")
    np.save("x.npy", IMAGES)
    expected = loss_of("runs/one")
    assert json.loads(Path("runs/one/data.json").read_text())["data"] == str(place / "pixels.npz")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    np.savez("pixels.npz", image=IMAGES[:4], label=LABELS[:4])  # not the data of the run
    run = str(place / "runs" / "one")
    assert loss_of(run) == expected
    done("predict", run, "--input", "../x.npy", "--output", "y.npy")
    assert done("train", "--resume", run, "--epochs", "3", "--quiet").code == 0
    expected = loss_of(run)
    Path("pixels.npz").unlink()
    moved = place / "project"
    moved.mkdir()
    (place / "runs").rename(moved / "runs")
    (place / "pixels.npz").rename(moved / "pixels.npz")
    assert loss_of(str(moved / "runs/one")) == expected  # found two folders above the run
    assert done("train", "--resume", "../project/runs/one", "--epochs", "4", "--quiet").code == 0
    (moved / "pixels.npz").rename(place / "elsewhere" / "other.npz")
    error = done("eval", str(moved / "runs/one"), code=2).err
    assert "are not there any more" in error and "hint: --data PATH" in error and str(place) in error
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
