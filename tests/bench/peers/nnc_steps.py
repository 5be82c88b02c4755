"""Training steps of nnc, with the loop over batches that `train` uses: `nnc_steps MODEL THREADS [TARGET]`."""

from __future__ import annotations

import sys
from itertools import chain, count
from pathlib import Path

import numpy as np

from compiler import __version__
from compiler.driver import Compilation, compile_tree, load_tree
from compiler.targets.registry import HOST
from compiler.targets.running import find_runtime
from runtime.datasets import describe
from runtime.feeding import batches, fitted
from runtime.program import LoadedProgram
from tests.bench.peers.common import BATCH, IMAGES, draw_digits, measure, report

ROOT = Path(__file__).resolve().parents[3]


def compile_model(model: str, target: str = HOST) -> Compilation:
    """The unchanged recipe, for images stored as bytes, which the step scales."""
    return compile_tree(load_tree(ROOT / "models" / f"{model}.nn"), storage=describe("digits"), target=target)


def load(compilation: Compilation, target: str) -> LoadedProgram:
    """The program as `train` loads it, with the weights of its seed."""
    runtime = find_runtime(target)
    runtime.start({})
    program = runtime.load(compilation.executable, compilation.manifest, {})
    program.initialize(0)
    return program


def train_step(program: LoadedProgram):
    """A function that trains on the next batch and reads the loss."""
    images, labels = draw_digits()
    arrays = fitted(program, "train_step", {"image": images, "label": labels}, "training")
    order = np.random.default_rng(0).permutation(IMAGES)
    epochs = (batches(program, "train_step", arrays, order, BATCH) for _ in count())
    steps = chain.from_iterable(epochs)

    def step() -> float:
        _, outputs = next(steps)
        return outputs["loss"].item()

    return step


@np.errstate(all="ignore")  # as in training
def main() -> None:
    target = sys.argv[3] if len(sys.argv) > 3 else HOST
    program = load(compile_model(sys.argv[1], target), target)
    report(measure(train_step(program)), nnc=__version__, numpy=np.__version__)


if __name__ == "__main__":
    main()
