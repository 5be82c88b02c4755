"""Steps of nnc for the models of tests/bench/models, with the loop of `train`: `beyond_nnc MODEL BATCH THREADS TARGET`."""

from __future__ import annotations

import sys
from itertools import chain, count

import numpy as np

from compiler import __version__
from compiler.driver import Compilation, compile_tree, load_tree
from runtime.feeding import batches, fitted
from runtime.program import LoadedProgram
from tests.bench.peers.beyond_data import BEYOND, FEW_BATCHES, FOLDER
from tests.bench.peers.common import measure, report
from tests.bench.peers.nnc_steps import load


def compile_model(name: str, batch: int, target: str) -> Compilation:
    return compile_tree(load_tree(FOLDER / f"{name}.nn", [("--batch", str(batch))]), target=target)


def train_step(program: LoadedProgram, name: str, batch: int):
    """A function that trains on the next batch and reads the loss."""
    arrays = fitted(program, "train_step", BEYOND[name].arrays(batch), "training")
    order = np.arange(FEW_BATCHES * batch)
    steps = chain.from_iterable(batches(program, "train_step", arrays, order, batch) for _ in count())

    def step() -> float:
        _, outputs = next(steps)
        return outputs["loss"].item()

    return step


@np.errstate(all="ignore")  # as in training
def main() -> None:
    name, batch, target = sys.argv[1], int(sys.argv[2]), sys.argv[4]
    program = load(compile_model(name, batch, target), target)
    report(measure(train_step(program, name, batch)), nnc=__version__, numpy=np.__version__)


if __name__ == "__main__":
    main()
