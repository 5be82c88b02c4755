"""A small program written by hand in the form of generated source, to test the runtime without the compiler.

Softmax regression on images u8[2,3] in 3 classes, with momentum, noise that depends on seed and step, and a state that
counts examples: everything that a checkpoint must bring back.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import CodeType

import numpy as np

from runtime import allowed, program
from runtime.datasets.dataset import Dataset, Split
from runtime.program import Executable, LoadedProgram, Manifest, Settings, TensorSpec
from runtime.training.progress import Reporter
from runtime.training.results import Position, Summary
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import train

BATCH = 8
NAME = "<tiny>"
SOURCE = """
import time
import numpy as np

def view(arena, start, dtype, *shape):
    count = int(np.prod(shape))
    return arena[start : start + count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

def variables(arena):
    return {
        "w": view(arena, 0, "f4", 6, 3),
        "w.v": view(arena, 128, "f4", 6, 3),
        "seen": view(arena, 256, "f4"),
        "step": view(arena, 320, "i4"),
        "seed": view(arena, 384, "i8"),
    }

def bind_variables(arena, batch):
    return None, variables(arena), {}

def bind_init(arena, batch):
    v = variables(arena)
    seed = view(arena, 448, "i8")

    def run():
        for name in ("w.v", "seen", "step"):
            v[name][...] = 0
        v["seed"][...] = seed
        v["w"][...] = np.random.Generator(np.random.Philox(int(seed))).normal(0, 0.1, (6, 3))

    return run, {"seed": seed}, {}

def forward(v, image, label, noise, outputs):
    x = image.reshape(-1, 6) / np.float32(255) + noise
    logits = x @ v["w"]
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    total = p.sum(1, keepdims=True)
    rows = np.arange(len(x))
    outputs["loss"][...] = (np.log(total[:, 0]) - logits[rows, label]).mean()
    outputs["accuracy"][...] = (p.argmax(1) == label).mean()
    p /= total
    p[rows, label] -= 1
    return x.T @ p / len(x)

def bind_train_step(arena, batch, training=True):
    v = variables(arena)
    inputs = {"image": view(arena, 512, "u1", batch, 2, 3, 1), "label": view(arena, 576, "i4", batch)}
    outputs = {"loss": view(arena, 640, "f4"), "accuracy": view(arena, 704, "f4")}

    def run():
        random = np.random.Generator(np.random.Philox(key=[int(v["seed"]), int(v["step"])]))
        noise = random.normal(0, 0.01, (batch, 6)).astype("f4")
        g = forward(v, inputs["image"], inputs["label"], noise, outputs)
        v["w.v"][...] = np.float32(0.9) * v["w.v"] + g
        v["w"] -= np.float32("LR") * v["w.v"]
        v["seen"] += batch
        v["step"] += 1
        time.sleep(PAUSE)

    return run, inputs, outputs

def bind_evaluate(arena, batch):
    v = variables(arena)
    _, inputs, outputs = bind_train_step(arena, batch)
    return lambda: forward(v, inputs["image"], inputs["label"], np.float32(0), outputs), inputs, outputs

def bind_predict(arena, batch):
    v = variables(arena)
    image, logits = view(arena, 512, "u1", batch, 2, 3, 1), view(arena, 768, "f4", batch, 3)

    def run():
        logits[...] = image.reshape(-1, 6) / np.float32(255) @ v["w"]

    return run, {"image": image}, {"logits": logits}
"""


def checked_unless_tiny(source: str, name: str, allow_list: allowed.AllowList) -> CodeType:
    """This source does more than generated source may: it is the only one that runs unchecked."""
    return compile(source, name, "exec") if name == NAME else allowed.checked_code(source, name, allow_list)


program.checked_code = checked_unless_tiny

MANIFEST = Manifest(
    model="Tiny",
    inputs=(TensorSpec("image", "u8", (None, 2, 3, 1), "input"),),
    targets=(TensorSpec("label", "i32", (None,), "target"),),
    outputs=(TensorSpec("logits", "f32", (None, 3), "output"),),
    variables=(
        TensorSpec("w", "f32", (6, 3), "param"),
        TensorSpec("w.v", "f32", (6, 3), "slot"),
        TensorSpec("seen", "f32", (), "state"),
        TensorSpec("step", "i32", (), "counter"),
        TensorSpec("seed", "i64", (), "counter"),
    ),
    metrics=("accuracy",),
    classes={"label": 3},
)


def tiny_build(
    lr: float = 0.3, pause: float = 0.0, source: str = SOURCE, **settings: object
) -> tuple[Executable, Manifest]:
    """The program with a learning rate, seconds to sleep in each step, and settings."""
    chosen = replace(Settings(batch=BATCH, epochs=3, seed=7), **settings)  # type: ignore[arg-type]
    text = source.replace("LR", repr(lr)).replace("PAUSE", repr(pause))
    return Executable(text, NAME, 1024, BATCH, "numpy"), replace(MANIFEST, settings=chosen)


def tiny_program(**options: object) -> LoadedProgram:
    """The program in memory, with options of `tiny_build`."""
    return LoadedProgram(*tiny_build(**options))  # type: ignore[arg-type]


def tiny_data(train: int = 50, test: int = 21) -> Dataset:
    """Neither size is a multiple of the batch."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (train + test, 2, 3), np.uint8)
    label = (image.reshape(-1, 6)[:, :3].argmax(1)).astype(np.uint8)
    splits = (Split({"image": image[part], "label": label[part]}) for part in (slice(train), slice(train, None)))
    return Dataset("tiny", *splits)


def program_text(program: LoadedProgram) -> str:
    """A replacement for the resolved program."""
    settings = program.manifest.settings
    return f"train Tiny {{\n  epochs = {settings.epochs}\n  seed = {settings.seed}\n}}\n"


def run_tiny(
    folder: Path, resume: bool = False, make: Callable[..., LoadedProgram] = tiny_program, **options: object
) -> tuple[LoadedProgram, Summary, str]:
    """Trains in a folder, new or resumed. Returns the program, the summary, and the output."""
    program = make(**options)
    text = program_text(program)
    start: Position | None = None
    if resume:
        run_folder = RunFolder.open(folder)
        start = run_folder.resume(program, text)
    else:
        run_folder = RunFolder.create("Tiny", text, folder)
    printed = io.StringIO()
    reporter = Reporter(stream=printed)
    summary = train(program, tiny_data(), run_folder=run_folder, reporter=reporter, start=start)
    return program, summary, printed.getvalue()


def contents(program: LoadedProgram) -> dict[str, bytes]:
    """All variables, bit for bit."""
    return {name: view.tobytes() for name, view in program.variables().items()}
