"""The program of `emit --target c --standalone`: it computes what `nnc train --native` computes, bit for bit, without
Python."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tests.native.compiler_or_skip  # noqa: F401
from runtime.native.library import find_compiler
from tests.cli.running import Result, nnc, process
from tests.programs import ROOT

SOFTMAX = """
model Softmax(image: f32[B, 256]) { return image |> Dense(10) }
train Softmax {
  loss = softmax_cross_entropy; metrics = [accuracy]; optimizer = SGD(lr=0.1); batch = 64; epochs = 2; seed = 7
}
"""
CONVOLUTION = """
model Small(image: f32[B, 16, 16, 1]) {
  return image |> Conv2D(8, 3) |> BatchNorm |> relu |> MaxPool2D(2) |> Flatten |> Dropout(0.5) |> Dense(10)
}
train Small {
  loss = softmax_cross_entropy; metrics = [accuracy]; optimizer = Adam(lr=0.01)
  batch = 64; epochs = 2; patience = 3; validation = 0.2
}
"""
TOTALS = """
model Totals(image: f32[B, 256]) { return image |> Dense(10) }
train Totals {
  loss = softmax_cross_entropy; metrics = [confusion_matrix, multiclass_f1]; optimizer = SGD(lr=0.1)
  batch = 64; epochs = 2
}
"""
MNIST = SOFTMAX.replace("f32[B, 256]", "f32[B, 28, 28]").replace("|> Dense", "|> Flatten |> Dense")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def write_data(folder: Path, separate: bool = True) -> None:
    """Images u8[N, 16, 16] with labels in a folder `data`; no number of rows is a multiple of the batch."""
    random = np.random.default_rng(0)
    (folder / "data").mkdir(exist_ok=True)
    for suffix, rows in (("", 150), ("_test", 70))[: 2 if separate else 1]:
        np.save(folder / f"data/image{suffix}.npy", random.integers(0, 256, (rows, 16, 16), np.uint8))
        np.save(folder / f"data/label{suffix}.npy", random.integers(0, 10, rows, np.uint8))


def build(folder: Path, text: str, *flags: str, data: str = "data") -> Path:
    """Writes train.c and compiles it with the command in its first comment; the program."""
    (folder / "program.nn").write_text(text)
    with contextlib.chdir(folder):
        done = nnc("emit", "program.nn", "--data", data, "--target", "c", "--standalone", "train.c")
    assert (done.code, done.out, done.err) == (0, "train.c\n", "")
    (command,) = re.findall(r"^   cc (.*)$", (folder / "train.c").read_text(), re.MULTILINE)
    compiler = find_compiler()[0].command
    subprocess.run([*compiler, *shlex.split(command), *flags], cwd=folder, check=True, timeout=300)
    return folder / "train"


def run(program: Path, *arguments: str) -> Result:
    """Runs a program without Python in its environment. It frees no texts of messages, since it ends soon."""
    env = {"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program, *arguments], cwd=program.parent, env=env, capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


def losses(log: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [{k: v for k, v in each.items() if k != "seconds"} for each in records if "epoch" in each]


def check_same(folder: Path, program: Path, data: str = "data") -> None:
    """Lines, losses and variables are those of `nnc train --native` on two threads."""
    native = ("--native", "--threads", "2")
    ours = process("train", "program.nn", "--data", data, *native, "--out", "run", folder=folder)
    assert (ours.code, ours.err) == (0, "")
    alone = run(program, data, "--threads", "2", "--log", "log.jsonl")
    assert (alone.code, alone.err) == (0, "")
    lines = [re.sub(r"[\d.]+ sec$", "", line) for line in alone.out.splitlines()]
    assert lines == [re.sub(r"[\d.]+ sec$", "", line) for line in ours.out.splitlines()[: len(lines)]]
    assert losses(folder / "log.jsonl") == losses(folder / "run" / "log.jsonl")
    found, expected = load_file(folder / "train.safetensors"), load_file(folder / "run" / "last.safetensors")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name].tobytes() != expected[name].tobytes()] == []


@pytest.mark.parametrize("text", [SOFTMAX, CONVOLUTION], ids=["softmax", "convolution"])
def test_trains_as_the_product_does(tmp_path: Path, text: str):
    write_data(tmp_path)
    check_same(tmp_path, build(tmp_path, text))


def test_a_run_continues_from_the_checkpoint(tmp_path: Path):
    write_data(tmp_path, separate=False)
    check_same(tmp_path, build(tmp_path, CONVOLUTION))  # the seed draws the rows to test with
    resume = ("train", "--resume", "run", "--epochs", "3", "--native", "--threads", "2")
    (tmp_path / "train.safetensors").replace(tmp_path / "run" / "last.safetensors")
    done = process(*resume, folder=tmp_path)
    assert (done.code, done.err) == (0, "") and "step 3" in done.out


def test_metrics_with_totals(tmp_path: Path):
    write_data(tmp_path)
    check_same(tmp_path, build(tmp_path, TOTALS))


@pytest.mark.parametrize("zipped", [False, True])
def test_reads_mnist(tmp_path: Path, zipped: bool):
    folder = tmp_path / "it's here"
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, rows in (("train", 150), ("t10k", 70)):
        for name, shape in (("images", (rows, 28, 28)), ("labels", (rows,))):
            array = random.integers(0, 10, shape, np.uint8)
            content = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + array.tobytes()
            path = folder / f"{split}-{name}-idx{len(shape)}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
            (tmp_path / "data").mkdir(exist_ok=True)
            np.save(tmp_path / f"data/{name[:-1]}{'' if split == 'train' else '_test'}.npy", array)
    program = build(tmp_path, MNIST)
    one, other = run(program, "data"), run(program, str(folder))
    assert (one.code, other.code) == (0, 0)
    assert [re.sub(r"[\d.]+ sec", "", each.out) for each in (one, other)] == [re.sub(r"[\d.]+ sec", "", one.out)] * 2


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The convolution with the checks of the compiler for wrong addresses and undefined behavior."""
    if "zig" in find_compiler()[0].command[0]:
        pytest.skip("this compiler comes without the libraries of sanitizers")
    folder = tmp_path_factory.mktemp("sanitized")
    write_data(folder)
    return build(folder, CONVOLUTION, *SANITIZERS)


def test_sanitizers_find_nothing(sanitized: Path):
    done = run(sanitized, "data", "--threads", "2", "--log", "log.jsonl")
    assert (done.code, done.err) == (0, "")


def broken(folder: Path, case: str) -> tuple[str, ...]:
    """Makes a folder with a mistake; the arguments of the program."""
    image, label = np.zeros((150, 16, 16), np.uint8), np.zeros(150, np.uint8)
    (folder / case).mkdir()
    arrays = {
        "no-array": {"image": image},
        "no-counterpart": {"image": image, "label": label, "label_test": label},
        "rows": {"image": image[1:], "label": label},
        "shape": {"image": image[:, 1:], "label": label},
        "type": {"image": image.astype(np.float32), "label": label == 0},
        "out-of-range": {"image": image, "label": label + 10},
        "fractions": {"image": image, "label": label + 0.5},
        "texts": {"image": image, "label": label.astype("U3")},
        "one-row": {"image": image[:1], "label": label[:1]},
    }
    for name, array in arrays.get(case, {"image": image, "label": label}).items():
        np.save(folder / case / f"{name}.npy", array)
    path = folder / case / "image.npy"
    content = path.read_bytes()
    if case == "truncated":
        path.write_bytes(content[:-1])
    if case == "header":
        path.write_bytes(content[:60])
    if case == "sizes":
        path.write_bytes(content.replace(b"(150, 16, 16)", b"(9999999999 )"))
    if case == "mnist":
        path.rename(folder / case / "train-images-idx3-ubyte")
    if case == "weights":
        (folder / "other.weights").write_bytes((folder / "train.weights").read_bytes()[:-1] + b"?")
    flags = {"weights": ("--weights", "other.weights"), "threads": ("--threads", "0"), "flag": ("--fast",)}
    return (case, *flags.get(case, ())) if case != "no-folder" else ("nowhere",)


CASES = (
    "no-folder", "no-array", "no-counterpart", "rows", "shape", "type", "out-of-range", "fractions", "texts", "one-row",
    "truncated", "header", "sizes", "mnist", "weights", "threads", "flag",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_reported(sanitized: Path, case: str):
    done = run(sanitized, *broken(sanitized.parent, case))
    assert (done.code, done.out) == (2, ""), done.err
    assert re.fullmatch(r"error: [^\n]+\n(  (expected|found|hint): [^\n]+\n)*", done.err), done.err


def test_a_disk_that_is_full(sanitized: Path):
    done = run(sanitized, "data", "--save", "no/such/folder")
    assert done.code == 2 and done.err.startswith("error: cannot write")


def test_lines_are_short():
    paths = sorted((ROOT / "runtime/native/standalone").glob("*.h"))
    assert paths
    assert [line for path in paths for line in path.read_text().splitlines() if len(line) > 120] == []
