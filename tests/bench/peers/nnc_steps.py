"""Training steps of nnc, with the loop over batches that `train` uses: `nnc_steps MODEL THREADS`."""

from __future__ import annotations

import sys
from itertools import chain, count

import numpy as np

from compiler import __version__
from compiler.driver import Compilation, compile_tree, load_tree
from runtime.datasets import describe
from runtime.feeding import batches, fitted
from runtime.program import LoadedProgram
from tests.bench.peers.common import BATCH, IMAGES, draw_digits, measure, report


def compile_model(model: str) -> Compilation:
    """The unchanged recipe, for images stored as bytes, which the step scales."""
    return compile_tree(load_tree(f"models/{model}.nn"), storage=describe("digits"))


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
    compilation = compile_model(sys.argv[1])
    program = LoadedProgram(compilation.executable, compilation.manifest)
    program.initialize(0)
    report(measure(train_step(program)), nnc=__version__, numpy=np.__version__)


if __name__ == "__main__":
    main()
