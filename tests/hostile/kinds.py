"""The kinds of untrusted files: valid ones of each kind, and the code that reads them.

A kind makes a folder of valid files and returns those to damage, one at a time. Trying one returns whether it was
accepted; a refusal must be an error for the user, and any other exception is a finding.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import re
import struct
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from compiler.cli.cache import Cache, Key, digest
from compiler.driver import compile_tree, load_tree
from compiler.ir.printer import print_graph
from compiler.targets.running import find_runtime
from runtime import allowed
from runtime.datasets import describe, load, mnist
from runtime.datasets.dataset import ArrayInfo
from runtime.program import LoadedProgram, TensorSpec
from runtime.training import checkpoint, tensor_files
from runtime.training.predictions import read_examples
from runtime.training.run_data import RunData
from runtime.training.run_folder import RunFolder
from tests.cli.conftest import PROGRAM
from tests.hostile.attempts import Kind, Wrong, accepted, nnc, written
from tests.hostile.command_lines import make_command_lines, try_command_line

ROOT = Path(__file__).resolve().parents[2]


# Programs -------------------------------------------------------------------------------------------------------------

SMALL = """
cell Cell(units)(x: f32[B, n]) {
  param w: f32[n, units] = glorot_uniform
  param u: f32[units, units] = orthogonal
  carry h: f32[B, units] = 0
  h = tanh(x @ w + h @ u)
  return h
}
metric Share(threshold=0)(logits: f32[B, n], label: i32[B]) {
  total hits: f32[n] = sum(one_hot(label, n) * cast(logits > threshold, "f32"), axes=0)
  total rows: f32[] = B
  total most: f32[] = reduce_max(logits)
  return hits / rows * most
}
fn twice(n, x) { if n == 0 { return x } else { return twice(n - 1, x) * 2 } }
model Small(image: f32[B, 6, 6, 2]) {
  x = image |> Conv2D(3, 3, stride=2, padding="same") |> BatchNorm |> relu
  for i in range(2) { x = x + (x |> Conv2D(3, 3, padding="same")) }
  y = scan(Cell(4), reshape(x, [B, 9, 3]))
  z = reshape(x, [B, 9, 3]) |> RNN(GRU(2))
  return twice(2, concat([y[:, -1], z], axis=1)) |> Dropout(0.5) |> Dense(3)
}
train Small {
  loss = softmax_cross_entropy
  metrics = [accuracy, Share(0.5), confusion_matrix]
  optimizer = Adam(lr=cosine(1e-3, 100), beta1=0.9)
  batch = 4
  epochs = 2
}
"""
IMPORTING = f'import "parts.nn"\n{PROGRAM.replace("relu", "half")}'
PARTS = "fn half(x) { return 0.5 * x }\nlayer Same(n=2)(x: f32[B, ...]) { return x }\n"
VOCABULARY = """
none true false training [] [1,2] "same" "valid" ... param state carry return if else for in and not or fn layer model
train import + - * / // % ** @ < == = , ; : ( ) [ ] { } |> -> % // B 4*B B//2 f32 f64 i32 i64 u8 bool f32[] f32[B,n]
f32[B,4] f32[0] f32[B,999999] i64[2,2] x n p loss image label x[0] x[:,1] x[::-1] shape(x) range(1000000000) range(9)
relu tanh softmax Flatten Dense Dense(3) Dense(0) Dense(10**9) Conv2D(3,3) BatchNorm Dropout(0.5) MaxPool2D(2) LSTM(2)
zeros ones he_normal orthogonal SGD Adam(lr=1e-3) accuracy mean_squared_error softmax_cross_entropy append len scan
sum mean max argmax split reshape concat where cast error("no") iota(3) random_normal([2]) Self() f(f) digits mnist
graph %0 %1 %x add mul matmul fused reshape broadcast transpose slice pad conv2d sum axes=[0] axes=[9] shape=[B,2]
metric total f1 auc perplexity reduce_max reduce_min
permutation=[1,0] stride=[0,1] keepdims=true input param target state seed counter output body // yield
"""


def make_programs(folder: Path) -> list[Path]:
    texts = re.findall(r"^```nn\n(.*?)^```", ROOT.joinpath("docs/language.md").read_text(), re.DOTALL | re.MULTILINE)
    files: dict[str, bytes | str] = {f"language-{number}.nn": text for number, text in enumerate(texts)}
    known = [*ROOT.glob("models/*.nn"), *ROOT.glob("compiler/std/*.nn"), *ROOT.glob("tests/golden/*.nn")]
    known += ROOT.glob("examples/custom_*.nn")
    files |= {f"{path.parent.name}-{path.name}": path.read_text() for path in sorted(known)}
    files |= {"small.nn": SMALL, "points.nn": PROGRAM, "importing.nn": IMPORTING, "parts.nn": PARTS}
    return written(folder, files)


def try_program(path: Path, choose: random.Random) -> bool:
    """A valid program is often compiled to its source, which is checked against the allow-list."""
    code, _ = nnc("check", path)
    if code == 0 and choose.random() < 0.3:
        target = choose.choice(("numpy", "cupy", "c"))
        code, source = nnc("emit", path, "--stage", "source", "--target", target, "--data", "digits")
        if code == 0 and source.startswith("# "):
            allowed.checked_code(source, "<mutant>", find_runtime(target).allowed)
    return code == 0


def make_ir(folder: Path) -> list[Path]:
    programs = written(folder, {"small.nn": SMALL, "points.nn": PROGRAM})
    programs += sorted(ROOT.glob("tests/golden/*.nn"))
    files: dict[str, bytes | str] = {}
    for path in programs:
        compiled = compile_tree(load_tree(path))
        for stage, module in (("graph", compiled.module), ("optimized", compiled.optimized)):
            for name, graph in module.items():
                files[f"{path.stem}-{stage}-{name}.ir"] = print_graph(graph) + "\n"
    return written(folder, files)


def try_ir(path: Path, choose: random.Random) -> bool:
    code, _ = nnc("check", path)
    if code == 0 and choose.random() < 0.3:
        target = choose.choice(("numpy", "cupy", "c"))
        code, source = nnc("emit", path, "--stage", "source", "--target", target)
        if code == 0:
            allowed.checked_code(source, "<mutant>", find_runtime(target).allowed)
    return code == 0


# Data -----------------------------------------------------------------------------------------------------------------


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def samples() -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(0)
    return {
        "point": numbers.normal(size=(12, 4)).astype(np.float32),
        "label": numbers.integers(0, 3, 12).astype(np.int32),
        "image": numbers.integers(0, 256, (12, 2, 3)).astype(np.uint8),
        "wide": np.asfortranarray(numbers.normal(size=(12, 2, 2))),
        "flag": numbers.integers(0, 2, 12).astype(bool),
    }


def make_npy(folder: Path) -> list[Path]:
    return written(folder, {f"{name}.npy": npy(array) for name, array in samples().items()})


def try_npy(path: Path, choose: random.Random) -> bool:
    """Reads it as the input of a prediction, and as an array of a data set."""
    spec = TensorSpec("point", "f32", (None, 4), "input")
    one = accepted(lambda: read_examples(str(path), [spec], None, "own"))
    described, loaded = accepted(lambda: describe(path.parent)), accepted(lambda: load(path.parent))
    if loaded and not described:
        raise Wrong("the data set is loaded although its headers are refused")
    return one or loaded


def make_npz(folder: Path) -> list[Path]:
    files: dict[str, bytes | str] = {}
    for name, compression in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for key, array in samples().items():
                archive.writestr(zipfile.ZipInfo(f"{key}.npy"), npy(array), compression)
        files[f"{name}.npz"] = stream.getvalue()
    return written(folder, files)


def try_npz(path: Path, choose: random.Random) -> bool:
    described, loaded = accepted(lambda: describe(path)), accepted(lambda: load(path))
    if loaded and not described:
        raise Wrong("the data set is loaded although its headers are refused")
    specs = [TensorSpec("point", "f32", (None, 4), "input"), TensorSpec("label", "i32", (None,), "input")]
    accepted(lambda: read_examples(str(path), specs, None, "own"))
    return loaded


def make_idx(folder: Path) -> list[Path]:
    labels = struct.pack(">4BI", 0, 0, 8, 1, 10) + bytes(range(10))
    images = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + bytes(2 * 784)
    files: dict[str, bytes | str] = {"labels": labels, "images": images}
    files |= {"labels.gz": gzip.compress(labels, mtime=0), "images.gz": gzip.compress(images, mtime=0)}
    return written(folder, files)


def try_idx(path: Path, choose: random.Random) -> bool:
    largest = (10_000,) if "labels" in path.name else (60_000, 28, 28)
    return accepted(lambda: mnist.read_idx(str(path), largest))


# Files that nnc writes ------------------------------------------------------------------------------------------------


def make_points(folder: Path) -> None:
    """A program with its data."""
    numbers = np.random.default_rng(0)
    point = numbers.normal(size=(48, 4)).astype(np.float32)
    written(folder, {"points.nn": PROGRAM, "points.npy": npy(point[:7])})
    np.savez(folder / "points.npz", point=point, label=np.abs(point).argmax(1).clip(0, 2).astype(np.int32))


def make_run(folder: Path) -> list[Path]:
    make_points(folder)
    with contextlib.chdir(folder):
        assert nnc("train", "points.nn", "--epochs", "2", "--out", "run", "--quiet")[0] == 0
    return sorted(folder.joinpath("run").iterdir())


def try_run(path: Path, choose: random.Random) -> bool:
    """Evaluates, predicts and resumes, with the folder as the current one."""
    commands: Sequence[Sequence[str]] = (
        ("eval", "run"),
        ("eval", "run", "--best"),
        ("predict", "run", "--input", "points.npy", "--output", "run/out.npy"),
        ("train", "--resume", "run", "--epochs", "3", "--quiet"),
    )
    with contextlib.chdir(path.parent.parent):
        return nnc(*choose.choice(commands))[0] == 0


def make_checkpoints(folder: Path) -> list[Path]:
    make_run(folder)
    return [folder / "run" / "last.safetensors"]


def make_run_data(folder: Path) -> list[Path]:
    make_run(folder)
    return [folder / "run" / "data.json"]


def try_run_data(path: Path, choose: random.Random) -> bool:
    """Reads it, and applies what it says to arrays of other kinds."""
    found: list[RunData | None] = []
    if not accepted(lambda: found.append(RunFolder(path.parent, "").read_data())) or not found[0]:
        return False
    arrays = {"point": np.array([choose.random() * 1e9, np.nan], np.float32), "label": np.array([0, 255], np.uint8)}
    infos = {"point": ArrayInfo("f32", (4,)), "label": ArrayInfo("u8", ())}
    scales = {name: info.scale or 1.0 for name, info in found[0].applied(infos).items()}
    found[0].warnings(arrays, scales, "given")
    return True


PROGRAMS: dict[Path, LoadedProgram] = {}


def try_checkpoint(path: Path, choose: random.Random) -> bool:
    """Loads it into a program, which it must not change if it is refused."""
    if path not in PROGRAMS:
        compiled = compile_tree(load_tree(path.parent / "program.nn"))
        PROGRAMS[path] = LoadedProgram(compiled.executable, compiled.manifest)
    program = PROGRAMS[path]
    program.initialize(1)
    before = {name: view.tobytes() for name, view in program.variables().items()}
    loaded = accepted(lambda: checkpoint.load(path, program))
    if not loaded and before != {name: view.tobytes() for name, view in program.variables().items()}:
        raise Wrong("a refused checkpoint changed the program")
    return loaded


NUMPY_TYPES = {"F32": "f4", "F64": "f8", "I32": "i4", "I64": "i8", "U8": "u1", "BOOL": "?"}  # by those of safetensors


def reseal_checkpoint(content: bytes, with_types: bool = False) -> bytes:
    """The checkpoint or dump with a matching header length and SHA-256, if they can be computed."""
    start = 0
    try:
        header, start = json.JSONDecoder().raw_decode(content[8:].decode("latin-1"))
        start += len(content[8 + start :]) - len(content[8 + start :].lstrip(b" "))  # headers are padded
        metadata = {name: text for name, text in header["__metadata__"].items() if name != "sha256"}
        data, views = content[8 + start :], {}
        for name, entry in header.items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                views[name] = np.frombuffer(data[first:last], np.uint8)
                if with_types:
                    views[name] = views[name].view(NUMPY_TYPES[entry["dtype"]]).reshape(entry["shape"])
        header["__metadata__"] = {**metadata, "sha256": tensor_files.digest(metadata, views, with_types)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return start.to_bytes(8, "little") + content[8:]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def make_dumps(folder: Path) -> list[Path]:
    """A step that gave NaN, as text and numbers."""
    make_points(folder)
    with contextlib.chdir(folder):
        code, _ = nnc("train", "points.nn", "--set", "train.optimizer=SGD(lr=1e38)", "--out", "run", "--quiet")
        assert code == 2
    return sorted(folder.joinpath("run").glob("numerics-*"))


def try_dump(path: Path, choose: random.Random) -> bool:
    return nnc("replay", path)[0] == 0


def make_cache(folder: Path) -> list[Path]:
    make_points(folder)
    os.environ["NNC_CACHE"] = str(folder / "cache")
    try:
        with contextlib.chdir(folder):
            assert nnc("eval", "points.nn")[0] == 0
    finally:
        os.environ["NNC_CACHE"] = "off"
    return sorted(folder.joinpath("cache").glob("*.json"))


def try_cache(path: Path, choose: random.Random) -> bool:
    """Reads the entry, and checks its source against the allow-list; the source is not run."""
    with contextlib.chdir(path.parent.parent):
        key = Key.of("points.nn", [True, [], "points.nn", None, "numpy", None, [], []])
        assert key and f"{key.name}.json" == path.name
        entry, reason = Cache(path.parent).load(key)
    if entry is None:
        if not reason.startswith("miss, "):
            raise Wrong(reason)
        return False
    executable = entry.build.executable
    return accepted(lambda: allowed.checked_code(executable.source, executable.name, allowed.CPU_PROGRAMS))


def reseal_cache(content: bytes) -> bytes:
    """The entry with a matching hash."""
    text = content.partition(b"\n")[2].decode(errors="replace")
    return f"{digest(text)}\n{text}".encode()


WORDS_OF_RUNS = (
    f"{VOCABULARY} null epoch best_loss history data_offsets dtype shape F32 F64 I64 BOOL __metadata__ sha256"
)
WORDS_OF_DATA = (
    "null true false NaN Infinity 1e999 -1e308 0.0 kind stored scale chosen low high classes arrays rows f32 u8 bool "
    "fingerprint drawn seed validation training test"
)
WORDS_OF_HEADERS = (
    "descr fortran_order shape True False <f4 <f8 >f4 |u1 |O <U8 <c8 <M8[s] (4,) (0,) () (-1,) {} [] None"
)
WORDS_OF_ENTRIES = (
    "null true false np kernels view import os eval open exec __class__ lambda getattr out axis def return"
)

WORDS_OF_FLAGS = """
--set --data --seed --epochs --batch --out --input --output --target --stage --after --diff --passes --disable --model
--memory-limit --gpu --tf32 --no-graph --best --strict --quiet --timings --list --check-numerics -- - -1 -h --help =
--set= --data= --seed=-- --data=-- --epochs=-1 --batch=0 --seed=99999999999 --memory-limit=1kB train.batch=2 train.=
train.data="x" train.seed=none train.epochs=1.5 model.x=1 check summary emit opt plan eval predict replay train numpy
cupy c graph source points.nn points.npy points.npz run .
"""

KINDS: dict[str, Kind] = {
    "nn": Kind(make_programs, try_program, VOCABULARY),
    "ir": Kind(make_ir, try_ir, VOCABULARY),
    "npy": Kind(make_npy, try_npy, WORDS_OF_HEADERS),
    "npz": Kind(make_npz, try_npz),
    "idx": Kind(make_idx, try_idx),
    "checkpoint": Kind(make_checkpoints, try_checkpoint, WORDS_OF_RUNS, reseal_checkpoint),
    "cache": Kind(make_cache, try_cache, WORDS_OF_ENTRIES, reseal_cache),
    "run": Kind(make_run, try_run, WORDS_OF_RUNS),
    "dump": Kind(make_dumps, try_dump, WORDS_OF_RUNS, partial(reseal_checkpoint, with_types=True)),
    "flags": Kind(lambda folder: make_command_lines(folder, make_points), try_command_line, WORDS_OF_FLAGS),
    "data": Kind(make_run_data, try_run_data, WORDS_OF_DATA),
}
