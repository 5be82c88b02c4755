"""What arrays mean belongs to the run: data.json, scales, and warnings about values out of range."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.pixel_runs import IMAGES, LABELS, PROGRAM, done, loss_of, place, predicted, recorded, save  # noqa: F401

FORMER = "has no data.json"


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
    assert "found: NaN\n" in predicted(np.full((3, 3, 3), np.nan, np.float32))[1]


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
