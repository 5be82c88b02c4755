"""Training, evaluation and prediction with a compiled program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from runtime.checkpoint import EpochResult, Position, encode, write_atomically
from runtime.datasets.dataset import Dataset, Split
from runtime.errors import RuntimeUserError, quoted
from runtime.feeding import Batches, batches, epoch_order, fitted
from runtime.interrupt import Interrupted, Signals
from runtime.program import Arrays, Program
from runtime.progress import Reporter
from runtime.run_folder import RunFolder


@dataclass(frozen=True)
class Summary:
    """A finished training. `train` and `test` are those of the last epoch; the figures of speed are of this session."""

    epochs: int  # completed in all
    trained: int  # of these, in this session
    best_epoch: int
    best_loss: float  # on the test split
    train: dict[str, float]
    test: dict[str, float]
    steps_per_second: float  # training steps alone
    seconds_per_epoch: float  # with evaluation and checkpoints
    stopped_early: bool
    folder: Path


class Diverged(RuntimeUserError):
    """The loss is infinite or not a number."""


@np.errstate(all="ignore")  # overflow inside a step is often harmless; the loss tells whether it was
def train(
    program: Program, dataset: Dataset, *, run_folder: RunFolder, reporter: Reporter, start: Position | None = None
) -> Summary:
    """Trains to the number of epochs in the program's settings, or until patience runs out.

    With `start` (from `RunFolder.resume`) the run goes on bit for bit as if it had never stopped; without it the
    program is initialized from its seed. Raises RuntimeUserError for data that do not fit, a full disk, or a loss
    that is not finite; Interrupted after a signal. After the last two, the last completed epoch is saved.
    """
    training = fitted(program, "train_step", dataset.train.arrays, "training")
    test = fitted(program, "evaluate", dataset.test.arrays, "test")
    keeper = _Keeper(program, run_folder)
    with Signals() as received:
        if start is None:
            start = Position()
            program.initialize(program.manifest.settings.seed)
            run_folder.begin(program.manifest)
            keeper.keep(start)  # so that a run can be resumed from its first moment, and a full disk is found at once
        session = _Session(program, training, test, start, reporter)
        try:
            while not session.finished:
                result = session.epoch(received)
                run_folder.record(result)  # before the checkpoint: a resumed run drops lines, but cannot invent them
                keeper.keep(session.position)
                reporter.epoch(result)
            keeper.flush()
            if received:
                raise Interrupted(received[0])
        except Interrupted as interruption:
            keeper.flush()
            saved = f"; epoch {keeper.epoch} is saved in {quoted(str(run_folder.path))}"
            raise Interrupted(interruption.signal, saved) from None
        except Diverged:
            keeper.flush()
            raise
        finally:
            reporter.close()
    summary = session.summary(run_folder.path)
    reporter.finish(summary)
    return summary


@np.errstate(all="ignore")
def first_step(program: Program, dataset: Dataset) -> float:
    """Initializes the program and trains on one batch; returns the loss."""
    program.initialize(program.manifest.settings.seed)
    training = fitted(program, "train_step", dataset.train.arrays, "training")
    count = min(program.batch, len(dataset.train))
    _, outputs = next(batches(program, "train_step", training, np.arange(count), count))
    return outputs["loss"].item()


@np.errstate(all="ignore")
def evaluate(program: Program, split: Split) -> dict[str, float]:
    """Loss and metrics over a split, as means over its examples."""
    arrays = fitted(program, "evaluate", split.arrays, "test")
    return _means(program, batches(program, "evaluate", arrays, np.arange(len(split)), program.batch))


@np.errstate(all="ignore")
def predict(program: Program, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's outputs [N, ...] by name, for inputs [N, ...] by name."""
    inputs = fitted(program, "predict", arrays, "given")
    examples = len(next(iter(inputs.values())))
    results: dict[str, np.ndarray] = {}
    done = 0
    for count, outputs in batches(program, "predict", inputs, np.arange(examples), program.batch):
        for name, view in outputs.items():
            if not done:
                results[name] = np.empty((examples, *view.shape[1:]), view.dtype)
            results[name][done : done + count] = view
        done += count
    return results


def _means(program: Program, runs: Batches) -> dict[str, float]:
    """Loss and metrics over all batches, each weighted by its examples, in f64."""
    names = ("loss", *program.manifest.metrics)
    totals = [0.0] * len(names)
    examples = 0
    for count, outputs in runs:
        examples += count
        for index, name in enumerate(names):
            totals[index] += count * outputs[name].item()
    return {name: total / examples for name, total in zip(names, totals, strict=True)}


class _Session:
    """The epochs of one call of `train`."""

    def __init__(self, program: Program, training: Arrays, test: Arrays, start: Position, reporter: Reporter):
        self.program, self.training, self.test, self.reporter = program, training, test, reporter
        self.settings = program.manifest.settings
        self.position = start
        self.examples, self.test_examples = (len(next(iter(arrays.values()))) for arrays in (training, test))
        self.steps = -(-self.examples // self.settings.batch)
        self.seconds_before = start.history[-1].seconds if start.history else 0.0
        self.began = perf_counter()
        self.trained = 0
        self.stepping = 0.0  # seconds spent in training steps

    @property
    def out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.position.epoch - self.position.best_epoch >= max(patience, 1)

    @property
    def finished(self) -> bool:
        return self.position.epoch >= self.settings.epochs or self.out_of_patience

    def epoch(self, received: Sequence[int]) -> EpochResult:
        """Trains and evaluates one epoch and moves `position` to its end."""
        program, settings, epoch = self.program, self.settings, self.position.epoch + 1
        self.reporter.start(epoch, settings.epochs, self.steps)
        began = perf_counter()
        order = epoch_order(self.examples, settings.seed, epoch, settings.shuffle)
        steps = batches(program, "train_step", self.training, order, settings.batch, received)
        train = _means(program, self._watched(steps, epoch))
        self.stepping += perf_counter() - began
        every = np.arange(self.test_examples)
        test = _means(program, batches(program, "evaluate", self.test, every, program.batch, received))
        if not math.isfinite(test["loss"]):
            raise self._diverged(test["loss"], f"on the test data after epoch {epoch}")
        result = EpochResult(epoch, train, test, self.seconds_before + perf_counter() - self.began)
        self.position = self.position.after(result)
        self.trained += 1
        return result

    def _watched(self, steps: Batches, epoch: int) -> Batches:
        """Passes training steps on, shows them now and then, and stops at the first loss that is not finite."""
        is_finite, clock, interval = math.isfinite, perf_counter, self.reporter.interval
        due = clock() + interval
        for step, (count, outputs) in enumerate(steps, 1):
            loss = outputs["loss"].item()
            if not is_finite(loss):
                raise self._diverged(loss, f"in epoch {epoch}, step {step} of {self.steps}")
            if clock() >= due:
                self.reporter.step(step)
                due = clock() + interval
            yield count, outputs

    def _diverged(self, loss: float, place: str) -> Diverged:
        return Diverged(
            f"training diverged {place}",
            expected="a finite loss",
            found=str(loss),
            hint=f"lower the learning rate (lr) of the optimizer; epoch {self.position.epoch} is saved and sound",
        )

    def summary(self, folder: Path) -> Summary:
        position, trained = self.position, self.trained
        last = position.history[-1] if position.history else EpochResult(0, {}, {}, 0.0)
        return Summary(
            epochs=position.epoch,
            trained=trained,
            best_epoch=position.best_epoch,
            best_loss=position.best_loss,
            train=last.train,
            test=last.test,
            steps_per_second=trained * self.steps / self.stepping if trained else 0.0,
            seconds_per_epoch=(perf_counter() - self.began) / trained if trained else 0.0,
            stopped_early=position.epoch < self.settings.epochs,
            folder=folder,
        )


class _Keeper:
    """Encodes a checkpoint at the end of every epoch, and writes it when one is due."""

    def __init__(self, program: Program, folder: RunFolder):
        self.program, self.folder = program, folder
        self.pending: dict[Path, bytes] = {}
        self.epoch = 0  # the last one encoded, written or not

    def keep(self, position: Position) -> None:
        data = encode(self.program, position, self.folder.program_hash)
        self.pending[self.folder.last] = data
        self.epoch = position.epoch
        if 0 < position.epoch == position.best_epoch:
            self.pending[self.folder.best] = data
        if position.epoch % self.program.manifest.settings.checkpoint == 0:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending. The best goes first: killed in between, a resumed run finds the same best again."""
        for path in (self.folder.best, self.folder.last):
            if path in self.pending:
                write_atomically(path, self.pending[path])
                del self.pending[path]
