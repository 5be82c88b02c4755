"""The training of a file: what `runtime/training/trainer.py` computes, without the folder of a run around it."""

from __future__ import annotations

import argparse
import json
import math
import time
import zipfile
from dataclasses import asdict

import numpy as np

from runtime.feeding import epoch_order
from runtime.program import aligned_zeros
from runtime.standalone.data import fitted, load_data
from runtime.standalone.settings import (
    ARENA_BYTES,
    BATCH,
    DATA,
    EPOCHS,
    GRAPHS,
    METRICS,
    PATIENCE,
    SEED,
    SHUFFLE,
    Arrays,
    Bound,
)
from runtime.training.checkpoint import EpochResult
from runtime.training.progress import epoch_line


class Program:
    """The memory of all tensors, and the graphs bound to it."""

    def __init__(self) -> None:
        self.arena = aligned_zeros(ARENA_BYTES)
        self.bound: dict[tuple[str, int], Bound] = {}

    def bind(self, graph: str, batch: int) -> Bound:
        """A graph for a number of examples up to BATCH."""
        if (graph, batch) not in self.bound:
            self.bound[graph, batch] = GRAPHS[graph](self.arena, batch)
        return self.bound[graph, batch]

    def run(self, graph: str) -> None:
        """Runs a graph that reads variables alone."""
        run, _, _ = self.bind(graph, 1)
        run()

    def variables(self) -> Arrays:
        """Weights, running statistics, what the optimizer keeps, and the counters `seed` and `step`."""
        _, variables, _ = self.bind("variables", 1)
        return variables

    def means(self, graph: str, arrays: Arrays, order: np.ndarray) -> dict[str, float]:
        """Runs a graph over examples in an order; loss and metrics as means over the examples."""
        totals = dict.fromkeys(("loss", *METRICS), 0.0)
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            run, inputs, outputs = self.bind(graph, len(indices))
            for name, view in inputs.items():
                arrays[name].take(indices, 0, view, "clip")
            run()
            if not math.isfinite(outputs["loss"]):
                raise SystemExit(f"error: training diverged: the loss is {outputs['loss']}")
            for name in totals:
                totals[name] += len(indices) * outputs[name].item()
        return {name: total / len(order) for name, total in totals.items()}


@np.errstate(all="ignore")  # overflow inside a step is often harmless; the loss tells whether it was
def train(training: Arrays, test: Arrays, epochs: int, log: str | None) -> Program:
    """Trains from the first weights that SEED gives; a line for each epoch is printed, and one of JSON is logged."""
    program = Program()
    training = fitted(training, program.bind("train_step", 1)[1])
    test = fitted(test, program.bind("evaluate", 1)[1])
    rows, test_rows = (len(next(iter(arrays.values()))) for arrays in (training, test))
    program.variables()["seed"][...] = SEED
    program.run("init")
    began, best_epoch, best_loss = time.perf_counter(), 0, math.inf
    for epoch in range(1, epochs + 1):
        means = program.means("train_step", training, epoch_order(rows, SEED, epoch, SHUFFLE))
        if "prepare" in GRAPHS:  # what `evaluate` needs of variables alone
            program.run("prepare")
        test_means = program.means("evaluate", test, np.arange(test_rows))
        result = EpochResult(epoch, means, test_means, time.perf_counter() - began)
        print(epoch_line(result), flush=True)
        if log:
            with open(log, "a", encoding="utf-8") as file:
                print(json.dumps(asdict(result)), file=file)
        if test_means["loss"] < best_loss:
            best_epoch, best_loss = epoch, test_means["loss"]
        if PATIENCE is not None and epoch - best_epoch >= PATIENCE:
            break
    return program


def save(path: str, arrays: Arrays) -> None:
    """Writes a .npz file; numpy.savez would not take every name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="PATH", default=DATA, help="a folder or a .npz file")
    parser.add_argument("--epochs", metavar="N", type=int, default=EPOCHS, help="(default: %(default)s)")
    parser.add_argument("--log", metavar="LOSSES.jsonl", help="add a line for each epoch to this file")
    parser.add_argument("--save", metavar="WEIGHTS.npz", help="write all variables to this file at the end")
    flags = parser.parse_args()
    program = train(*load_data(flags.data), flags.epochs, flags.log)
    if flags.save:
        save(flags.save, program.variables())
