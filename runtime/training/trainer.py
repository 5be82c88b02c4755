"""Training, evaluation and prediction with a compiled program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from runtime.datasets.dataset import Dataset, Split
from runtime.errors import IndexOutside, RuntimeUserError, quoted
from runtime.feeding import HostRunner, NotFinite, Runner, Watch, epoch_order, fitted, rows_named, runner_of
from runtime.program import LoadedProgram, TensorSpec
from runtime.training.captures import Capture, capture_of, first_bad_batch
from runtime.training.checkpoint import encode, load, write_atomically
from runtime.training.interrupt import Interrupted, Signals
from runtime.training.numerics import Guard, Trend, advice, finite_names, show_names
from runtime.training.progress import Reporter
from runtime.training.results import EpochResult, Position, Summary
from runtime.training.run_folder import RunFolder


class Diverged(RuntimeUserError):
    """The loss, or a variable, is infinite or not a number. `capture` is the step that caused it, if it was found.

    The compiler can add a `report` on that step.
    """

    capture: Capture | None = None
    report: str = ""

    def __str__(self) -> str:
        return "\n".join(filter(None, [super().__str__(), self.report]))


@np.errstate(all="ignore")  # overflow inside a step is often harmless; the loss shows if it was not
def train(
    program: LoadedProgram,
    dataset: Dataset,
    *,
    run_folder: RunFolder,
    reporter: Reporter,
    start: Position | None = None,
    check_numerics: bool = False,
) -> Summary:
    """Trains to the number of epochs in the program's settings, or until patience runs out.

    With `start` (from `RunFolder.resume`) the run continues bit for bit as if it had never stopped; without it the
    program is initialized from its seed. Raises RuntimeUserError for data that do not fit, a full disk, or (Diverged) a
    loss that is not finite; Interrupted after a signal. After the last two, the last completed epoch is saved.
    With `check_numerics` all variables are checked after every step, not only at the end of every epoch.
    """
    runners = {
        part: _runner(program, "train_step" if part == "training" else "evaluate", split.arrays, part)
        for part, split in dataset.splits.items()
    }
    saver = _Saver(program, run_folder)
    with Signals() as received:
        if start is None:
            start = Position()
            program.initialize(program.manifest.settings.seed)
            run_folder.begin(program)
            saver.add(start)  # so a run can be resumed from its start, and a full disk is found at once
        saver.written = start.epoch
        session = _Session(program, dataset.splits, runners, start, reporter)
        if check_numerics:
            session.guard = Guard(program.variables())
        try:
            while not session.finished:
                result = session.epoch(received)
                run_folder.record(result)  # before the checkpoint: a resumed run can drop lines, but not make them up
                saver.add(session.position)
                reporter.epoch(result)
            saver.flush()
            if received:
                raise Interrupted(received[0])
        except Interrupted as interruption:
            saver.flush()
            saved = f"; epoch {saver.epoch} is saved in {quoted(str(run_folder.path))}"
            raise Interrupted(interruption.signal, saved) from None
        except IndexOutside as outside:
            saver.flush()
            outside.when = ", ".join(filter(None, [f"epoch {session.position.epoch + 1}", outside.when]))
            outside.hint = f"epoch {session.position.epoch} is saved and intact"
            raise
        except Diverged as diverged:
            saver.flush()
            diverged.capture = session.capture(run_folder, received)
            raise
        except RuntimeUserError as error:  # a checkpoint or the log could not be written
            saved = f"epoch {saver.written} is saved in {quoted(str(run_folder.path))}"
            error.hint = f"{saved}; --resume continues after it"
            raise
        finally:
            reporter.close()
    summary = session.summary(run_folder.path)
    reporter.finish(summary)
    return summary


@np.errstate(all="ignore")
def first_step(program: LoadedProgram, dataset: Dataset) -> float:
    """Initializes the program and trains on one batch; returns the loss."""
    program.initialize(program.manifest.settings.seed)
    training = _runner(program, "train_step", dataset.train.arrays, "training")
    count = min(program.batch, training.examples)
    _, outputs = next(training.batches(np.arange(count), count))
    return outputs["loss"].item()


@np.errstate(all="ignore")
def evaluate(program: LoadedProgram, split: Split) -> dict[str, Any]:
    """Loss and metrics over the examples of a split; vectors and matrices as nested lists."""
    test = _runner(program, "evaluate", split.arrays, "test")
    with rows_named("test", split):
        return test.means(np.arange(test.examples), program.batch)


@np.errstate(all="ignore")
def predict(program: LoadedProgram, arrays: Mapping[str, np.ndarray], seed: int | None = None) -> dict[str, np.ndarray]:
    """The model's outputs by name, for inputs [N, ...] by name.

    Random numbers are those of the program's seed, or of another; they do not depend on the size of the batches. Raises
    RuntimeUserError if there are several batches and an output cannot be joined: it has no axis B, or has 2*B rows, and
    is not the same in all batches.
    """
    if seed is not None:
        program.assign({**program.variables(), "seed": np.array(seed, np.int64)})
    inputs = _runner(program, "predict", arrays, "given")
    joined: dict[str, _Joined] = {}
    done = 0
    for count, outputs in inputs.batches(np.arange(inputs.examples), program.batch):
        for spec in program.manifest.outputs:
            if not done:
                joined[spec.name] = _Joined(spec, outputs[spec.name], count, inputs.examples)
            joined[spec.name].add(outputs[spec.name], done, count)
        done += count
    return {name: each.whole for name, each in joined.items()}


class _Joined:
    """An output of the whole data, joined from those of its batches along its axis B."""

    def __init__(self, spec: TensorSpec, first: np.ndarray, count: int, examples: int):
        self.spec, self.shape = spec, first.shape
        axes = [axis for axis, size in enumerate(spec.shape) if size is None]
        self.axis = axes[0] if len(axes) == 1 and first.shape[axes[0]] == count else None  # not for 2*B
        if self.axis is None and axes and count < examples:
            raise self.error(count)
        sizes = [examples if axis == self.axis else size for axis, size in enumerate(first.shape)]
        self.whole = np.empty(sizes, first.dtype)

    def add(self, part: np.ndarray, done: int, count: int) -> None:
        """Adds the output of a batch that begins at example `done`."""
        if self.axis is not None:
            np.moveaxis(self.whole, self.axis, 0)[done : done + count] = np.moveaxis(part, self.axis, 0)
        elif not done:
            self.whole[...] = part
        elif self.whole.tobytes() != part.tobytes():
            raise self.error(done)

    def error(self, batch: int) -> RuntimeUserError:
        return RuntimeUserError(
            f"output {quoted(self.spec.name)} cannot be joined from batches: it has no row per example",
            expected=f"an output with a dimension B, or at most {batch} examples, which are one batch",
            found=f"shape {list(self.shape)} for each batch",
        )


def _runner(program: LoadedProgram, graph: str, arrays: Mapping[str, np.ndarray], part: str) -> Runner:
    """The runner of a graph over arrays, which are checked."""
    return runner_of(program, graph, fitted(program, graph, arrays, part))


class _Session:
    """The epochs of one call of `train`. `splits` and `runners` are those of the parts of the data, by name."""

    def __init__(
        self,
        program: LoadedProgram,
        splits: Mapping[str, Split],
        runners: Mapping[str, Runner],
        start: Position,
        reporter: Reporter,
    ):
        self.program, self.splits, self.reporter = program, splits, reporter
        self.training, self.test, self.validation = runners["training"], runners["test"], runners.get("validation")
        self.settings = program.manifest.settings
        self.position = start
        self.steps = -(-self.training.examples // self.settings.batch)
        self.seconds_before = start.history[-1].seconds if start.history else 0.0
        self.began = perf_counter()
        self.trained = 0
        self.stepping = 0.0  # seconds spent in training steps
        self.trend = Trend(self._warn, start.history[0].train["loss"] if start.history else math.nan)
        self.guard: Guard | None = None
        self.watched = finite_names(program.variables())  # others are infinite from the start
        self.failure: NotFinite | None = None  # of a step that the guard checked
        self.not_finite: tuple[str, Runner] | None = None  # the test or validation data, if these gave such a loss

    @property
    def finished(self) -> bool:
        return self.position.is_final(self.settings.epochs, self.settings.patience)

    def epoch(self, received: Sequence[int]) -> EpochResult:
        """Trains and evaluates one epoch and moves `position` to its end."""
        settings, epoch = self.settings, self.position.epoch + 1
        self.reporter.start(epoch, settings.epochs, self.steps)
        began = perf_counter()
        train = self._train(epoch, received)
        self.stepping += perf_counter() - began
        finite = finite_names(self.program.variables())
        if bad := tuple(name for name in self.watched if name not in finite):
            raise self._diverged(f"in epoch {epoch}", bad)
        apart = None
        if self.validation is not None:
            apart = self._evaluate(self.validation, "validation", epoch, received)
        test = self._evaluate(self.test, "test", epoch, received)
        result = EpochResult(epoch, train, test, self.seconds_before + perf_counter() - self.began, apart)
        self.position = self.position.after(result)
        self.trained += 1
        return result

    def _evaluate(self, runner: Runner, part: str, epoch: int, received: Sequence[int]) -> dict[str, Any]:
        with rows_named(part, self.splits[part]):
            results = runner.means(np.arange(runner.examples), self.program.batch, received)
        if not math.isfinite(results["loss"]):
            self.not_finite = (part, runner)
            raise self._diverged(f"on the {part} data after epoch {epoch}", loss=results["loss"])
        return results

    def _train(self, epoch: int, received: Sequence[int]) -> dict[str, Any]:
        """All training steps of an epoch; stops at the first loss that is not finite."""
        watch = Watch(self.reporter.step, self.reporter.interval, self.trend, self.guard)
        try:
            with rows_named("training", self.splits["training"]):
                return self.training.means(self._order(epoch), self.settings.batch, received, watch)
        except NotFinite as bad:
            self.failure = bad if self.guard else None
            place = f"in epoch {epoch}, step {bad.step} of {self.steps}"
            raise self._diverged(
                place, bad.variables, bad.loss, first=self.position.epoch == 0 and bad.step == 1
            ) from None

    def _order(self, epoch: int) -> np.ndarray:
        return epoch_order(self.training.examples, self.settings.seed, epoch, self.settings.shuffle)

    def _warn(self, growth: str) -> None:
        self.reporter.warn(advice(growth, self.program.manifest.optimizer))

    def _diverged(
        self, place: str, variables: tuple[str, ...] = (), loss: float = 0.0, first: bool = False
    ) -> Diverged:
        """The error for a loss that is not finite, or else for variables that are not; `first`: in the first step."""
        of_loss = not math.isfinite(loss)
        helps = advice(self.trend.growth, self.program.manifest.optimizer)
        if of_loss and first:
            helps = "this is before the first update: the cause is in the model, its initial values or the data"
        return Diverged(
            f"training diverged {place}",
            expected="a finite loss" if of_loss else "finite variables",
            found=str(loss) if of_loss else f"NaN or Inf in {show_names(variables)}",
            hint=f"{helps}; epoch {self.position.epoch} is saved and intact",
        )

    def capture(self, folder: RunFolder, received: Sequence[int]) -> Capture | None:
        """The first step that gave a NaN or an infinity, with the variables from before it; only on the CPU.

        If no guard has these, the epoch is run again with one, from its start, which was saved. None if this time all
        goes well: then something other than the program and its data was involved.
        """
        if not isinstance(self.training, HostRunner):
            return None
        epoch, size, order = self.position.epoch + 1, self.settings.batch, self._order(self.position.epoch + 1)
        part, runner = self.not_finite or ("", None)
        if isinstance(runner, HostRunner):
            order, size = np.arange(runner.examples), self.program.batch
            bad = first_bad_batch(runner, order, size)
            variables = self.program.variables()
            return bad and self._placed(capture_of("evaluate", part, runner, order, size, epoch, bad, variables))
        if self.guard is None or self.failure is None:
            load(folder.last, self.program, folder.program_hash)
            self.guard = Guard(self.program.variables())
            self.reporter.start(epoch, self.settings.epochs, self.steps)
            watch = Watch(self.reporter.step, self.reporter.interval, guard=self.guard)
            try:
                self.training.means(order, size, received, watch)
            except NotFinite as bad:
                self.failure = bad
        failure, before, part = self.failure, self.guard.before, "training"
        return failure and self._placed(
            capture_of("train_step", part, self.training, order, size, epoch, failure, before)
        )

    def _placed(self, capture: Capture) -> Capture:
        """The capture with the rows as they are in the file, if rows were drawn."""
        places = self.splits[capture.data].places
        return capture if places is None else replace(capture, indices=places[capture.indices])

    def summary(self, folder: Path) -> Summary:
        position, trained = self.position, self.trained
        last = position.history[-1] if position.history else EpochResult(0, {}, {}, 0.0)
        return Summary(
            epochs=position.epoch,
            trained=trained,
            best_epoch=position.best_epoch,
            best_loss=position.best_loss,
            watched="test" if self.validation is None else "validation",
            train=last.train,
            test=last.test,
            steps_per_second=trained * self.steps / self.stepping if trained else 0.0,
            seconds_per_epoch=(perf_counter() - self.began) / trained if trained else 0.0,
            stopped_early=position.epoch < self.settings.epochs,
            folder=folder,
        )


class _Saver:
    """Encodes a checkpoint at the end of every epoch, and writes it when one is due."""

    def __init__(self, program: LoadedProgram, folder: RunFolder):
        self.program, self.folder = program, folder
        self.pending: dict[Path, bytes] = {}
        self.epoch = 0  # the last one encoded, written or not
        self.written = 0

    def add(self, position: Position) -> None:
        data = encode(self.program, position, self.folder.program_hash)
        self.pending[self.folder.last] = data
        self.epoch = position.epoch
        if 0 < position.epoch == position.best_epoch:
            self.pending[self.folder.best] = data
        if position.epoch % self.program.manifest.settings.checkpoint == 0:
            self.flush()

    def flush(self) -> None:
        """Writes all pending files. The best is first: killed in between, a resumed run finds the same best again."""
        for path, backup in ((self.folder.best, None), (self.folder.last, self.folder.previous)):
            if path in self.pending:
                write_atomically(path, self.pending[path], backup)
                del self.pending[path]
        self.written = self.epoch
