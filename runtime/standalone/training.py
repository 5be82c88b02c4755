"""The training of a file: computes what `runtime/training/trainer.py` computes, but writes no run folder."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np

from runtime.datasets.arrays import write_npz
from runtime.datasets.dataset import Dataset, Split
from runtime.errors import RuntimeUserError
from runtime.feeding import Batches, batches, epoch_order, fitted_to, means, rows_named
from runtime.program import Arrays, BoundGraphs, aligned_zeros
from runtime.standalone.data import load_data
from runtime.standalone.settings import (
    ABOUT,
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
    VALIDATION,
)
from runtime.training.progress import data_line, epoch_line
from runtime.training.results import EpochResult, Position, json_line


@np.errstate(all="ignore")  # overflow inside a step is often harmless; the loss shows if it was not
def train(data: Dataset, epochs: int, log: str | None) -> BoundGraphs:
    """Trains from the initial weights of SEED; prints a line on the data, and one for each epoch.

    The log gets a line of JSON for each epoch.
    """
    program = BoundGraphs(GRAPHS, aligned_zeros(ARENA_BYTES), BATCH)
    data = data.with_validation(VALIDATION, SEED)
    training = fitted_to(program.inputs("train_step", 1), data.train.arrays, CLASSES, "training")
    test, watched = fitted_to(program.inputs("evaluate", 1), data.test.arrays, CLASSES, "test"), None
    if data.validation is not None:
        watched = fitted_to(program.inputs("evaluate", 1), data.validation.arrays, CLASSES, "validation")
    rows = len(next(iter(training.values())))
    program.initialize(SEED)
    print(data_line(data, SEED, ABOUT))
    began, position = time.perf_counter(), Position()
    while not position.is_final(epochs, PATIENCE):
        epoch = position.epoch + 1
        order = epoch_order(rows, SEED, epoch, SHUFFLE)
        result = EpochResult(
            epoch,
            trained(program, data.train, training, order),
            evaluated(program, "test", data.test, test),
            time.perf_counter() - began,
            None if watched is None else evaluated(program, "validation", data.validation, watched),
        )
        position = position.after(result)
        print(epoch_line(result), flush=True)
        if log:
            with open(log, "a", encoding="utf-8") as file:
                file.write(json_line(result.record))
    return program


def trained(program: BoundGraphs, split: Split, arrays: Arrays, order: np.ndarray) -> dict[str, Any]:
    """Loss and metrics over an epoch of training; raises RuntimeUserError at the first loss that is not finite."""
    with rows_named("training", split):
        return means(finite(batches(program, "train_step", arrays, order, BATCH)), program, METRICS, TOTALS)


def evaluated(program: BoundGraphs, part: str, split: Split | None, arrays: Arrays) -> dict[str, Any]:
    """Loss and metrics over test or validation data; raises RuntimeUserError if the loss is not finite."""
    order = np.arange(len(next(iter(arrays.values()))))
    with rows_named(part, split):
        results = means(batches(program, "evaluate", arrays, order, BATCH), program, METRICS, TOTALS)
    require_finite(results["loss"])
    return results


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
        program = train(load_data(flags.data), flags.epochs, flags.log)
    except RuntimeUserError as error:
        raise SystemExit(str(error)) from None
    if flags.save:
        write_npz(flags.save, program.variables())
