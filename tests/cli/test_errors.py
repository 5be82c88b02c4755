"""Errors in flags, files and data: exit code 2, a message, nothing written, no traceback."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from tests.cli.running import nnc

FLAGS = [
    ("trian points.nn", 'hint: did you mean "train"?'),
    ("train", "there is nothing to train"),
    ("train points.nn --ephocs 3", "train has no flag --ephocs", 'did you mean "--epochs"?'),
    ("train points.nn --ephocs=3", 'did you mean "--epochs"?'),
    ("train points.nn more", "there is one argument too many", "found: more"),
    ("train points.nn --epochs", "--epochs needs a value"),
    ("train points.nn --quiet=yes", "--quiet"),
    ("emit points.nn --stage sauce", "--stage cannot be sauce", 'did you mean "source"?'),
    ("train points.nn --data=--", "--data needs a value"),
    ("train points.nn --seed=--", "--seed needs a value"),
    ("eval points.nn --set=--", "--set needs a value"),
    ("train points.nn --out=--", "--out needs a value"),
    ("train points.nn --data a\udcff", "an argument is not valid UTF-8", 'found: "a\\udcff"'),
    ("train a\udcff.nn", "an argument is not valid UTF-8"),
    ("train points.nn --out a\udcff", "an argument is not valid UTF-8"),
    ("plan cnn --batch 2147483647", "batch 2147483647 is too large", "note: choose a smaller --batch"),
    ("emit points.nn --standalone=", "--standalone is empty text", "expected: the name of a file or folder"),
    ("train points.nn --data 'a\nb'", "--data takes a path of printable characters", 'found: "a\\nb"'),
    ("train points.nn --seed 99999999999", "expected: a whole number from 0 to 2147483647"),
    ("predict run", "required arguments are missing: --input, --output"),
    ("summary", "required arguments are missing: FILE"),
    ("train points.nn --set batch", "--set takes KEY=VALUE", "found: batch"),
    ("train points.nn --set =3", "--set takes KEY=VALUE"),
    (
        "train points.nn --set bacht=3",
        '--set bacht:1:1: error: unknown key bacht in train Points; did you mean "batch"?',
        " 1 | bacht = 3\n   | ^^^^^\n",
    ),
    ("train points.nn --set 'train.batch=1 +'", "--set train.batch:1:12: error: syntax error", " 1 | batch = 1 +\n"),
    ("train points.nn --set batch=", "--set batch:1:1: error: syntax error"),
    ("train points.nn --set optimizer=Adamm", "--set optimizer:1:13: error: unknown optimizer Adamm"),
    ("train points.nn --batch 0", "--batch:1:9: error: invalid value for batch", " 1 | batch = 0\n   |         ^\n"),
    ("train points.nn --epochs 2.5", "--epochs:1:10: error: invalid value for epochs"),
    ("train points.nn --seed -1", "--seed:1:8: error: invalid value for seed"),
    ("train points.nn --epochs '3 } train X {'", "--epochs:1:12: error: syntax error"),
    ("train points.nn --model Pionts", 'there is no model Pionts; did you mean "Points"?'),
    ("eval points.nn --best", "--best needs a run"),
    ("train points.nn --disable fusoin", 'there is no pass fusoin; did you mean "fusion"?'),
    (
        "eval points.nn --passes dead-code,nothing",
        "there is no pass nothing",
        "expected: index-checks, scan-hoisting, ",
    ),
    ("train points.nn --disable materialize", "no code can be generated without the pass materialize"),
    ("emit points.nn --passes dead-code", "no code can be generated without the pass "),
    ("emit points.nn --passes dead-code --after fusion", "the pass fusion does not run", "expected: dead-code"),
    ("emit points.nn --passes= --diff fusion", "the pass fusion does not run", "expected: nothing"),
    ("emit points.nn --after simplify:9", "the pass simplify:9 does not run"),
    ("emit points.nn --stage plan --after fusion", "--stage and --after exclude each other"),
    ("emit points.nn --diff fusion --dump-dir d", "--diff and --dump-dir exclude each other"),
    ("emit points.nn --target cuda", "--target cannot be cuda", "expected: numpy, c, cupy"),
    (
        "emit points.nn --graph trian_step",
        'there is no graph trian_step at stage source; did you mean "train_step"?',
    ),
    ("emit points.nn --stage tree --graph init", "a syntax tree has no graphs"),
    ("emit points.nn --dump-dir full", 'cannot create the folder "full"', "found: Directory not empty"),
    ("emit points.nn --dump-dir points.nn", 'cannot create the folder "points.nn"', "found: Not a directory"),
    ("emit points.nn --dump-dir d --graph nothing", "there is no graph nothing"),
    ("opt", "there is nothing to run passes on"),
    ("opt none.ir", "cannot read none.ir"),
    ("plan points.nn --batch 64,0", "--batch takes numbers of examples", "found: 0"),
    ("plan points.nn --batch x", "--batch takes numbers of examples", "found: x"),
    ("plan points.nn --graph nothing", "there is no graph nothing at stage plan"),
]

FILES = [
    ("train none.nn", "cannot read none.nn"),
    ("train .", "cannot read .", "found: a directory"),
    ("check points.npz", "not UTF-8"),
    (
        "eval nowhere",
        'there is no file, run or model "nowhere"',
        "expected: a .nn file, the folder of a run, or one of bil",
    ),
    ("train ponits.nn", "cannot read ponits.nn", 'hint: did you mean "points.nn"?'),
    ("train ./ponits.nn", "cannot read ponits.nn", 'did you mean "points.nn"?'),
    ("predict points.nn --input points.npy --output y.npy", "there is no run folder", 'hint: "points.nn" is a file'),
    ("train --resume " + "x" * 400, "there is no run folder"),
    ("predict " + "x" * 400 + " --input points.npy --output y.npy", "there is no run folder"),
    ("emit points.nn --dump-dir /", 'cannot create the folder "/"'),
    ("predict nothing --input points.npy --output y.npy", "hint: the folder of an earlier run is needed"),
    ("train cn", 'there is no file, run or model "cn"', 'did you mean "cnn"?'),
    ("train other/cnn.nn", "cannot read other/cnn.nn", "hint: nnc brings a model of this name: cnn, without folder"),
    ("summary other/cnn", "cannot read other/cnn", "found: no such file"),
    ("train --resume nowhere", 'there is no run folder "nowhere"'),
    ("train --resume .", '"." is not a run folder'),
    ("train points.nn --resume nowhere", 'there is no run folder "nowhere"'),
    ("train --resume nowhere --out run", "a resumed run stays in its folder"),
    ("train points.nn --out full", 'the run folder "full" is not empty', "hint: continue the run in it"),
    ("train points.nn --out=", "--out is empty text", "expected: the name of a file or folder"),
    ("train --resume=", "--resume is empty text"),
    ("train points.nn --out points.nn", 'cannot make the run folder "points.nn"'),
    ("predict nowhere --input points.npy --output y.npy", 'there is no run folder "nowhere"'),
    ("train untrained.nn", "untrained.nn: Plain has no train block"),
    ("emit untrained.nn --batch 3", "untrained.nn has no train block, so batch cannot be overridden"),
    ("summary parts.nn", "there is no model in parts.nn"),
    ("train untrained.nn --epochs 3", "no train block"),
    (
        "train huge.nn",
        "Huge needs more memory than this machine has",
        "600 GB for the result of matmul f32[B,2000000000]",
    ),
    ("eval huge.nn", "Huge needs more memory than this machine has"),
    ("train graph.ir", "train needs a program: IR text holds graphs", "hint: emit, opt, plan and check take IR text"),
    ("eval graph.ir", "eval needs a program"),
    ("summary graph.ir", "summary needs a program"),
    ("emit graph.ir --stage tree", "IR text has no stage tree"),
    ("emit graph.ir --stage gradient", "IR text has no stage gradient"),
    ("emit graph.ir --seed 3", "--seed means nothing for IR text"),
    ("emit graph.ir --batch x", "--batch takes numbers of examples"),
    ("plan graph.ir --data digits", "--data means nothing for IR text"),
]

DATA = [
    ("none.npz", 'there is no data set "none.npz"'),
    ("mnits", 'there is no data set "mnits"', 'did you mean "mnist"?'),
    ("", 'there is no data set ""'),
    ("mnist", 'the data set has no array for the model\'s input "point"'),
    ("renamed.npz", 'the data set has no array for the model\'s target "label"', 'did you mean "lable"?'),
    ("narrow.npz", 'array "point" does not have the shape', "found: f32[3]"),
    (
        "classes.npz",
        'row 5 of array "label" (training) is not a class of the model',
        "expected: whole numbers 0 … 2",
        "found: 7",
    ),
    ("infinite.npz", 'row 3 of array "point" (training) is not finite'),
    ("empty.npz", "too few rows"),
    ("points.nn", '"points.nn" is not a .npz file', "expected: a file written by numpy.savez", "found: text: "),
    ("table.csv", "found: text: ", "hint: numpy.genfromtxt reads a CSV file"),
    ("page.npz", 'found: HTML or XML: "<!doctype html>', "hint: was a web page downloaded instead of the data?"),
    ("nothing.npz", "found: an empty file"),
    ("array.npz", "found: a single array", "rename it to end in .npy"),
    ("one_hot.npz", "hint: one-hot labels? store their argmax, or use a loss with an f32 target"),
    ("from_one.npz", "is not a class of the model", "hint: the values run from 1 to 3: subtract 1"),
    ("unsigned.npz", "int8 to int64", "found: dtype uint64", "hint: convert the array with .astype(numpy.int64)"),
    ("texts.npz", "found: dtype <U1", "hint: give each text a number"),
    ("keras.npz", "hint: no suffix _train is needed: numpy.savez(path, image=x_train, image_test=x_test, …)"),
    ("y.npz", 'target "label"', 'rename array "y" to "label"'),
    ("folder/none.npz", "a relative path starts at the current folder", "--data PATH names another"),
]

HUGE = """\
model Huge(point: f32[B, 4]) { return point |> Dense(2000000000) |> Dense(3) }
train Huge { data = "points.npz"; loss = softmax_cross_entropy; optimizer = SGD }
"""


@pytest.fixture
def surroundings(place: Path) -> Path:
    """The files that some of the errors are about."""
    (place / "full").mkdir()
    (place / "full/file").write_text("")
    (place / "untrained.nn").write_text("model Plain(x: f32[B, 4]) { return x |> Dense(3) }\n")
    (place / "parts.nn").write_text("fn f(x) { return x }\n")
    (place / "huge.nn").write_text(HUGE)
    (place / "graph.ir").write_text("graph g(%x: f32[B,4] input) {\n  return y=%x\n}\n")
    with np.load(place / "points.npz") as arrays:
        point, label = arrays["point"], arrays["label"]
    wrong_label, infinite = label.copy(), point.copy()
    wrong_label[5], infinite[3, 1] = 7, np.inf
    np.savez("renamed.npz", point=point, lable=label)
    np.savez("narrow.npz", point=point[:, :3], label=label)
    np.savez("classes.npz", point=point, label=wrong_label)
    np.savez("infinite.npz", point=infinite, label=label)
    (place / "table.csv").write_text("a,b,label\n1,2,0\n")
    (place / "page.npz").write_text("\n<!doctype html><html></html>")
    (place / "nothing.npz").write_text("")
    (place / "array.npz").write_bytes((place / "points.npy").read_bytes())
    np.savez("one_hot.npz", point=point, label=np.eye(3, dtype=np.float32)[label])
    np.savez("from_one.npz", point=point, label=label + 1)
    np.savez("unsigned.npz", point=point, label=label.astype(np.uint64))
    np.savez("texts.npz", point=point, label=label.astype(str).astype("U1"))
    np.savez("keras.npz", x_train=point, y_train=label, x_test=point, y_test=label)
    np.savez("y.npz", point=point, y=label)
    np.savez("empty.npz", point=point[:0], label=label[:0])
    return place


def refuses(arguments: list[str], fragments: list[str], place: Path) -> None:
    before = sorted(place.rglob("*"))
    result = nnc(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "error: " in result.err and "Traceback" not in result.err
    for fragment in fragments:
        assert fragment in result.err, result.err
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(("arguments", "fragments"), [(a, f) for a, *f in FLAGS + FILES])
def test_flags_and_files(surroundings: Path, arguments: str, fragments: list[str]):
    refuses(shlex.split(arguments), fragments, surroundings)


@pytest.mark.parametrize(("data", "fragments"), [(d, f) for d, *f in DATA])
@pytest.mark.parametrize("command", ["train", "eval"])
def test_data(surroundings: Path, command: str, data: str, fragments: list[str]):
    refuses([command, "points.nn", "--data", data], fragments, surroundings)


def test_a_run_of_another_program_cannot_be_resumed(place: Path):
    assert nnc("train", "points.nn", "--epochs", "1", "--out", "run").code == 0
    before = (place / "run/last.safetensors").read_bytes()
    for change, fragment in (
        (["--seed", "5"], "was written by another program"),
        (["--batch", "8"], "was written by another program"),
        (["--set", "optimizer=Adam"], "does not fit the program"),
    ):
        refuses(["train", "--resume", "run", "--epochs", "2", *change], [fragment], place)
    refuses(["train", "--resume", "rnu"], ['there is no run folder "rnu"', 'did you mean "run"?'], place)
    assert (place / "run/last.safetensors").read_bytes() == before


def test_predictions_for_wrong_inputs(place: Path):
    assert nnc("train", "points.nn", "--epochs", "1", "--out", "run").code == 0
    np.save("narrow.npy", np.zeros((3, 3), np.float32))
    for given, output, fragment in (
        ("none.npy", "y.npy", '"none.npy" cannot be opened'),
        ("narrow.npy", "y.npy", 'array "point" does not have the shape'),
        ("points.nn", "y.npy", "is not a .npz file"),
        ("points.npy", "y.txt", "expected: a file name that ends in .npy or .npz"),
        ("points.npy", "nowhere/y.npy", 'cannot write "nowhere/y.npy"'),
    ):
        refuses(["predict", "run", "--input", given, "--output", output], [fragment], place)
    assert "previous contents" not in nnc("predict", "run", "--input", "points.npy", "--output", "nowhere/y.npy").err


def test_mistakes_of_optimizers_are_found_by_check(place: Path):
    text = (place / "points.nn").read_text().replace("lr=0.1", "lr=-0.1")
    (place / "wrong.nn").write_text(text)
    refuses(["check", "wrong.nn"], ["wrong.nn:10:15: error: the learning rate must be a number, at least 0"], place)
