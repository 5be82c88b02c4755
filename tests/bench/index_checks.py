"""What checking indices costs in a training step: the five models, and models that look rows up in tables.

    python tests/bench/index_checks.py

A check is left in the code only if the range of its index is not proved. For models with checks, steps with them and
steps in which they only copy their indices run in turns; the difference of the medians is the cost.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from compiler.driver import compile_tree, load_tree  # noqa: E402
from compiler.ir.graph import Module  # noqa: E402
from runtime.cpu import kernels  # noqa: E402
from runtime.datasets import describe  # noqa: E402
from runtime.feeding import batches, fitted  # noqa: E402
from runtime.program import LoadedProgram  # noqa: E402
from tests.programs import MODELS, compile_text  # noqa: E402

ROWS, BATCH, ROUNDS, STEPS = 4096, 64, 15, 20
WORDS = 5000
TABLES = {  # name -> model; `word` counts from 1, so each index is computed and checked
    "words": "model M(word: i32[B, 64]) { return word - 1 |> Embedding(5000, 64) |> Flatten |> Dense(10) }",
    "words, one a row": "model M(word: i32[B]) { return word - 1 |> Embedding(5000, 64) |> Dense(10) }",
    "an LSTM": "model M(word: i32[B, 32]) { return word - 1 |> Embedding(5000, 32) |> RNN(LSTM(32)) |> Dense(9) }",
}
TRAIN = f"train M {{ loss = softmax_cross_entropy; optimizer = SGD(lr=0.1); batch = {BATCH} }}"


def main() -> None:
    for model in MODELS:
        compiled = compile_tree(load_tree(ROOT / "models" / f"{model}.nn"), storage=describe("digits"))
        print(f"{model:18} {checks_in(compiled.module)} checks written, {checks_in(compiled.optimized)} in the code")
    for name, text in TABLES.items():
        compiled = compile_text(f"{text}\n{TRAIN}\n")
        programs = {unchecked: LoadedProgram(compiled.executable, compiled.manifest) for unchecked in (False, True)}
        with_checks, without = medians(programs)
        print(
            f"{name:18} {checks_in(compiled.module)} checks written, {checks_in(compiled.optimized)} in the code: "
            f"{with_checks * 1e6:7.1f} us with, {without * 1e6:7.1f} us without, {with_checks / without - 1:+.1%}"
        )


def checks_in(module: Module) -> int:
    return sum(node.op.name == "check_index" for node in module["train_step"].walk())


def medians(programs: dict[bool, LoadedProgram]) -> tuple[float, float]:
    """Seconds of a step with checks, and of one in which they copy; rounds of both alternate."""
    numbers = np.random.default_rng(0)
    shape = next(iter(programs.values())).inputs("train_step", 1)["word"].shape[1:]
    word = numbers.integers(1, WORDS, (ROWS, *shape), np.int32)
    arrays = {"word": word, "label": numbers.integers(0, 9, ROWS, np.int32)}
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for unchecked, program in programs.items():
            program.initialize(0)
            check = copy if unchecked else kernels.check_index
            with mock.patch.object(kernels, "check_index", check):
                times[unchecked].append(seconds(program, fitted(program, "train_step", arrays, "training")))
    return statistics.median(times[False]), statistics.median(times[True])


def copy(indices: np.ndarray, out: np.ndarray, **facts: object) -> None:
    np.copyto(out, indices)


def seconds(program: LoadedProgram, arrays: dict[str, np.ndarray]) -> float:
    """The mean over some steps."""
    running = batches(program, "train_step", arrays, np.arange(ROWS), BATCH)
    next(running)
    began = time.perf_counter()
    for _ in range(STEPS):
        next(running)
    return (time.perf_counter() - began) / STEPS


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        main()
