"""The file of `emit --standalone`: it computes what `nnc train` computes, bit for bit, with only NumPy."""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import runtime.standalone.data as standalone_data
from runtime.datasets import load
from runtime.datasets.dataset import Dataset
from tests.cli.running import Result, environment, nnc, process
from tests.programs import ROOT

# Products large enough to be divided over threads, in both directions, and an optimizer with state.
WIDE = """
model Wide(image: f32[B, 256]) {
  return image |> Dense(512, activation=sigmoid) |> Dense(10)
}
train Wide {
  loss = softmax_cross_entropy; metrics = [accuracy]; optimizer = SGD(lr=0.1, momentum=0.9)
  batch = 64; epochs = 2; seed = 7
}
"""
CONVOLUTION = """
model Small(image: f32[B, 16, 16, 1]) {
  return image |> Conv2D(8, 3) |> BatchNorm |> relu |> MaxPool2D(2) |> Flatten |> Dropout(0.5) |> Dense(10)
}
train Small {
  loss = softmax_cross_entropy; metrics = [accuracy]; optimizer = Adam(lr=0.01)
  batch = 64; epochs = 2; shuffle = false; patience = 3; validation = 0.2
}
"""
RECURRENT = """
model Reader(image: f32[B, 16, 16]) { return image |> Bidirectional(LSTM(12)) |> Dense(10) }
train Reader { loss = softmax_cross_entropy; optimizer = SGD(lr=0.1); batch = 64; epochs = 1 }
"""
# A loss and metrics with totals: a matrix, a vector, 0 / 0, and the largest of all data.
TOTALS = """
metric Weighted(logits: f32[B, n], label: i32[B]) {
  weight = 1 + cast(label, "f32")
  total entropy: f32[] = -sum(weight * sum(one_hot(label, n) * log_softmax(logits), axes=-1))
  total weights: f64[] = sum(cast(weight, "f64"))
  return entropy / cast(weights, "f32")
}
metric Extremes(logits: f32[B, n]) {
  total high: f32[n] = reduce_max(logits, axes=0)
  total low: f32[n] = reduce_min(logits, axes=0)
  total nothing: f32[] = 0 * B
  return concat(high, low, reshape(nothing / nothing, [1]))
}
model M(image: f32[B, 256]) { return image |> Dense(10) }
train M {
  loss = Weighted; metrics = [accuracy, confusion_matrix, Extremes, multiclass_f1]; optimizer = SGD(lr=0.1)
  batch = 64; epochs = 2
}
"""
# Names of functions and constants of the file, and of local variables of generated functions.
HOSTILE = """
model M(matmul: f32[B, 256], run_tiles: f32[B, 256], GRAPHS: f32[B, 256], region_1: f32[B, 256], file: f32[B, 256]) {
  param main: f32[256] = 0.5
  return (matmul * run_tiles + GRAPHS - region_1 * main) |> Dense(512, activation=tanh) |> Dense(10) |> Dense(256)
}
fn error(y: f32[B, n], THREADS: f32[B, n]) { return mean_squared_error(y, THREADS) }
fn __doc(y: f32[B, n], THREADS: f32[B, n]) { return mean(y) }
train M { loss = error; metrics = [__doc]; optimizer = Adam(lr=0.01); batch = 64; epochs = 1 }
"""
RUFF = shutil.which("ruff", path=Path(sys.executable).parent)
PROGRAMS = {"wide": WIDE, "convolution": CONVOLUTION, "recurrent": RECURRENT, "totals": TOTALS}


def write_data(folder: Path) -> None:
    """Images u8[N, 16, 16] with labels; no number of rows is a multiple of the batch."""
    random = np.random.default_rng(0)
    arrays = {}
    for suffix, rows in (("", 150), ("_test", 70)):
        arrays["image" + suffix] = random.integers(0, 256, (rows, 16, 16), np.uint8)
        arrays["label" + suffix] = random.integers(0, 10, rows, np.uint8)
    np.savez(folder / "data.npz", **arrays)


def emit(folder: Path, program: str = "program.nn", data: str = "data.npz") -> Path:
    """Writes train.py into a folder inside the folder of program and data."""
    (folder / "alone").mkdir(exist_ok=True)
    with contextlib.chdir(folder):
        done = nnc("emit", program, "--data", data, "--standalone", "alone/train.py")
    assert (done.code, done.err) == (0, "")
    return folder / "alone" / "train.py"


def run(script: Path, *arguments: str, **changes: str) -> Result:
    """Runs a file where the project cannot be imported, and with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", script.name, *arguments],
        cwd=script.parent,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def losses(log: Path) -> list[dict[str, object]]:
    """The epochs of a log, without the time they took; floats are written so that they read back the same."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [{key: record[key] for key in ("epoch", "train", "test")} for record in records if "epoch" in record]


def test_draws_the_same_rows_to_test(tmp_path: Path):
    (tmp_path / "program.nn").write_text(CONVOLUTION)
    random = np.random.default_rng(0)
    image, label = random.integers(0, 256, (150, 16, 16), np.uint8), random.integers(0, 10, 150)
    np.savez(tmp_path / "data.npz", image=image, label=label.astype(float))
    check_same(tmp_path)


def bits(arrays: Mapping[str, np.ndarray]) -> dict[str, object]:
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def check_same(folder: Path, program: str = "program.nn", data: str = "data.npz", threads: str = "2") -> None:
    """Trains with the compiler and with the file; losses, metrics, weights and slots are the same to the last bit."""
    limit = {"OPENBLAS_NUM_THREADS": threads}
    ours = process("train", program, "--data", data, "--out", "run", folder=folder, **limit)
    assert (ours.code, ours.err) == (0, "")
    script = emit(folder, program, data)
    theirs = run(script, "--data", f"../{data}", "--log", "log.jsonl", "--save", "weights.npz", **limit)
    assert (theirs.code, theirs.err) == (0, "")
    assert losses(script.parent / "log.jsonl") == losses(folder / "run" / "log.jsonl")
    lines = [re.sub(r"[\d.]+ sec$", "", line) for line in theirs.out.splitlines()]
    assert lines == [re.sub(r"[\d.]+ sec$", "", line) for line in ours.out.splitlines()[: len(lines)]]
    with np.load(script.parent / "weights.npz") as weights:
        assert bits(weights) == bits(load_file(folder / "run" / "last.safetensors"))


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_trains_as_the_compiler_does(tmp_path: Path, name: str, threads: str):
    (tmp_path / "program.nn").write_text(PROGRAMS[name])
    write_data(tmp_path)
    check_same(tmp_path, threads=threads)


def test_names_of_the_model_do_not_break_out(tmp_path: Path):
    program, data = 'a"""\nraise SystemExit(99)\n""" % %(prog)s \\.nn', 'it\'s "data" \\ é.npz'
    (tmp_path / program).write_text(HOSTILE)
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / data, "w") as archive:  # numpy.savez takes no array called `file`
        for name in ("matmul", "run_tiles", "GRAPHS", "region_1", "file", "THREADS"):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, random.normal(size=(90, 256)).astype(np.float32))
    check_same(tmp_path, program, data)


# The text of the file -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[*PROGRAMS, "cnn"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The files of the programs above, and of a model on the generated data set."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param not in PROGRAMS:
        shutil.copy(ROOT / "models" / f"{request.param}.nn", folder / "program.nn")
        return emit(folder, data="digits").read_text()
    (folder / "program.nn").write_text(PROGRAMS[request.param])
    write_data(folder)
    return emit(folder).read_text()


def test_imports_only_numpy(text: str):
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    assert {module.partition(".")[0] for module in modules} - sys.stdlib_module_names == {"numpy"}


def test_nothing_is_left_over(text: str):
    """Every definition of the file is used in it."""
    tree = ast.parse(text)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            defined |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert defined <= used


def test_lines_are_short(text: str):
    assert [line for line in text.splitlines() if len(line) > 120] == []
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


@pytest.mark.skipif(RUFF is None, reason="ruff is not installed")
def test_lint(text: str, tmp_path: Path):
    (tmp_path / "train.py").write_text(text)
    command = [str(RUFF), "check", "--no-cache", "--config", str(ROOT / "pyproject.toml"), "train.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_same_bytes_for_every_hash_seed(tmp_path: Path):
    texts = set()
    command = ("emit", "models/cnn.nn", "--data", "digits", "--standalone", tmp_path / "train.py")
    for seed in ("0", "1", "2"):
        done = process(*command, folder=ROOT, PYTHONHASHSEED=seed)
        assert (done.code, done.err) == (0, "")
        texts.add((tmp_path / "train.py").read_bytes())
    assert len(texts) == 1


# Threads and data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["", "0", "1", "2", "64", "many"])
def test_as_many_threads_as_the_runtime(limit: str):
    script = "import numpy; from runtime.cpu.threads import thread_count; a = thread_count()\n"
    script += "from runtime.standalone.blas import THREADS; print(a, THREADS)"
    limits = {"OPENBLAS_NUM_THREADS": limit, "GOTO_NUM_THREADS": "", "MKL_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(**limits), capture_output=True, text=True, check=True
    )
    runtime, alone = done.stdout.split()
    assert runtime == alone


def check_splits(found: Dataset, expected: Dataset) -> None:
    for one, other in zip(found.splits.values(), expected.splits.values(), strict=True):
        assert one.arrays.keys() == other.arrays.keys()
        assert all(np.array_equal(one.arrays[name], array) for name, array in other.arrays.items())


def test_draws_the_digits_of_the_data_set():
    expected = load("digits")
    check_splits(standalone_data.load_digits(None), expected)


@pytest.mark.parametrize("zipped", [False, True])
def test_reads_mnist(tmp_path: Path, zipped: bool):
    random = np.random.default_rng(0)
    for split, rows in (("train", 7), ("t10k", 3)):
        for name, shape in (("images", (rows, 28, 28)), ("labels", (rows,))):
            array = random.integers(0, 10, shape, np.uint8)
            content = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + array.tobytes()
            path = tmp_path / f"{split}-{name}-idx{len(shape)}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    expected = load("mnist", tmp_path)
    check_splits(standalone_data.load_mnist(str(tmp_path)), expected)


def test_reads_a_folder_of_arrays(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.arange(24.0).reshape(12, 2))
    expected = load(tmp_path)
    check_splits(standalone_data.load_arrays(str(tmp_path)), expected)


BROKEN = {
    "no-folder": ("--data", "nowhere"),
    "no-array": ("--data", "only_image.npz"),
    "other-arrays": ("--data", "other.npz"),
    "wrong-shape": ("--data", "wrong_shape.npz"),
    "wrong-type": ("--data", "floats.npz"),
    "out-of-range": ("--data", "out_of_range.npz"),
}


@pytest.mark.parametrize("arguments", BROKEN.values(), ids=BROKEN)
def test_mistakes_are_reported(tmp_path: Path, arguments: tuple[str, ...]):
    (tmp_path / "program.nn").write_text(WIDE)
    write_data(tmp_path)
    script = emit(tmp_path)
    label, image = np.zeros(12, np.uint8), np.zeros((12, 16, 16), np.uint8)
    np.savez(script.parent / "only_image.npz", image=image)
    np.savez(script.parent / "other.npz", x=image)
    np.savez(script.parent / "wrong_shape.npz", image=image[:, 1:], label=label)
    np.savez(script.parent / "floats.npz", image=image.astype(float), label=label)
    np.savez(script.parent / "out_of_range.npz", image=image, label=label + 10)
    done = run(script, *arguments)
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n(  (expected|found|hint): [^\n]+\n)+", done.err)


def test_divergence_is_reported_without_warnings(tmp_path: Path):
    """Numbers overflow in every thread before the loss shows it."""
    (tmp_path / "program.nn").write_text(WIDE.replace("lr=0.1", "lr=1e30").replace("sigmoid", "relu"))
    write_data(tmp_path)
    done = run(emit(tmp_path), "--data", "../data.npz", OPENBLAS_NUM_THREADS="2")
    assert (done.code, done.out) == (
        1, "150 rows to train, 70 to test; 10 classes; image u8 / 255, label u8; 136,714 parameters\n"
    )  # fmt: skip
    assert re.fullmatch(r"error: training diverged: the loss is (nan|inf)\n", done.err)


def test_mnist_must_be_named(tmp_path: Path):
    shutil.copy(ROOT / "models" / "softmax.nn", tmp_path)
    done = run(emit(tmp_path, "softmax.nn", "mnist"))
    assert done.code == 1
    assert done.err.startswith("error: MNIST is not part of this file\n") and "--data FOLDER" in done.err
