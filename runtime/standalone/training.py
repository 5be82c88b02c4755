"""The training of a file: computes what `runtime/training/trainer.py` computes, but writes no run folder."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict

import numpy as np

from runtime.datasets.arrays import write_npz
from runtime.errors import RuntimeUserError
from runtime.feeding import Batches, batches, epoch_order, fitted_to, means
from runtime.program import Arrays, BoundGraphs, aligned_zeros
from runtime.standalone.data import load_data
from runtime.standalone.settings import (
    ARENA_BYTES,
    BATCH,
    CLASSES,
    DATA,
    EPOCHS,
    GRAPHS,
    METRICS,
    PATIENCE,
    SEED,
    SHUFFLE,
    TOTALS,
)
from runtime.training.progress import epoch_line
from runtime.training.results import EpochResult, Position, json_line


@np.errstate(all="ignore")  # overflow inside a step is often harmless; the loss shows if it was not
def train(training: Arrays, test: Arrays, epochs: int, log: str | None) -> BoundGraphs:
    """Trains from the initial weights of SEED; prints a line for each epoch, and adds one of JSON to the log."""
    program = BoundGraphs(GRAPHS, aligned_zeros(ARENA_BYTES), BATCH)
    training = fitted_to(program.inputs("train_step", 1), training, CLASSES, "training")
    test = fitted_to(program.inputs("evaluate", 1), test, CLASSES, "test")
    rows, test_rows = (len(next(iter(arrays.values()))) for arrays in (training, test))
    program.initialize(SEED)
    began, position = time.perf_counter(), Position()
    while not position.is_final(epochs, PATIENCE):
        epoch = position.epoch + 1
        order, test_order = epoch_order(rows, SEED, epoch, SHUFFLE), np.arange(test_rows)
        result = EpochResult(
            epoch,
            means(finite(batches(program, "train_step", training, order, BATCH)), program, METRICS, TOTALS),
            means(batches(program, "evaluate", test, test_order, BATCH), program, METRICS, TOTALS),
            time.perf_counter() - began,
        )
        require_finite(result.test["loss"])
        position = position.after(result)
        print(epoch_line(result), flush=True)
        if log:
            with open(log, "a", encoding="utf-8") as file:
                file.write(json_line(asdict(result)))
    return program


def finite(runs: Batches) -> Batches:
    """The same runs; raises RuntimeUserError at the first loss that is infinite or not a number."""
    for count, outputs in runs:
        require_finite(outputs["loss"].item())
        yield count, outputs


def require_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise RuntimeUserError(f"training diverged: the loss is {loss}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="PATH", default=DATA, help="a folder or a .npz file")
    parser.add_argument("--epochs", metavar="N", type=int, default=EPOCHS, help="(default: %(default)s)")
    parser.add_argument("--log", metavar="LOSSES.jsonl", help="add a line for each epoch to this file")
    parser.add_argument("--save", metavar="WEIGHTS.npz", help="write all variables to this file at the end")
    flags = parser.parse_args()
    try:
        program = train(*load_data(flags.data), flags.epochs, flags.log)
    except RuntimeUserError as error:
        raise SystemExit(str(error)) from None
    if flags.save:
        write_npz(flags.save, program.variables())
