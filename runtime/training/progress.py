"""The output of training: a progress bar on a terminal, a line per epoch, and a summary at the end.

Rich is imported when the first bar is shown, for a quick start.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from runtime.datasets.dataset import Dataset
from runtime.training.results import EpochResult, Summary

REFRESH_SECONDS = 0.1


class Reporter:
    """Reports to a stream, by default standard output. With `quiet` only the final summary is printed.

    The trainer calls `step` at most every `interval` seconds; infinite means never.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self.quiet = quiet
        self.interval = REFRESH_SECONDS if self.stream.isatty() and not quiet else math.inf
        self._bar: Any = None  # a rich.progress.Progress, made when it is first shown
        self._title, self._steps, self._began = "", 0, 0.0

    def data(self, line: str) -> None:
        """Says what is going to be trained, in the words of `data_line`."""
        if not self.quiet:
            print(line, file=self.stream, flush=True)

    def start(self, epoch: int, epochs: int, steps: int) -> None:
        """An epoch of `steps` steps begins."""
        self._title, self._steps, self._began = f"epoch {epoch}/{epochs}", steps, time.perf_counter()

    def step(self, done: int) -> None:
        """Shows that `done` steps of the epoch are done. Epochs shorter than `interval` have no bar."""
        bar = self._bar
        if bar is None:
            bar = self._bar = _new_bar(self.stream)
            bar.add_task(self._title, total=self._steps, rate="")
            bar.start()
        rate = done / (time.perf_counter() - self._began)
        bar.update(bar.task_ids[0], completed=done, rate=f"{rate:,.0f} steps/s", refresh=True)

    def epoch(self, result: EpochResult) -> None:
        """The epoch is over."""
        self.close()
        if not self.quiet:
            print(epoch_line(result), file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """Prints a warning; training continues."""
        self.close()
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def finish(self, summary: Summary) -> None:
        """Training is over."""
        self.close()
        print(summary_text(summary), file=self.stream, flush=True)

    def close(self) -> None:
        """Removes the bar from the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def data_line(dataset: Dataset, seed: int | None, about: str) -> str:
    """The data before the first epoch, with what the program says `about` them; without a seed the last rows are for
    testing:

    10,000 rows to train, 2,000 to test (drawn by seed 0); 10 classes; image u8 / 255, label u8; 1,234 parameters
    """
    rows = {part: f"{len(split):,}" for part, split in dataset.splits.items()}
    apart = f", {rows['validation']} for validation" if "validation" in rows else ""
    return f"{rows['training']} rows to train{apart}, {rows['test']} to test{source_of_test(dataset, seed)}; {about}"


def source_of_test(dataset: Dataset, seed: int | None) -> str:
    """` (drawn by seed 0)`, or which they are without a seed; empty for a data set with separate test rows."""
    drawn = "the last rows" if seed is None else f"drawn by seed {seed}"
    return f" ({drawn})" if dataset.drawn else ""


def epoch_line(result: EpochResult) -> str:
    """One epoch, train / test or train / validation / test, with tabs before `accuracy` and `step`:

    loss: 0.0541 / 0.0370   accuracy: 0.7651 / 0.8499   step 1  1.09 sec

    Metrics that are vectors or matrices are left out.
    """
    parts = [part for part in (result.train, result.validation, result.test) if part is not None]
    names = [name for name, value in result.train.items() if not isinstance(value, list)]
    values = [f"{name}: {' / '.join(figure(part[name]) for part in parts)}" for name in names]
    return "\t".join([*values, f"step {result.epoch}  {result.seconds:.2f} sec"])


def figure(value: float) -> str:
    """`0.0541`; numbers that four decimals would not show, or that have too many digits: `3.21e-06`, `1.50e+09`."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 or value != value else f"{value:.2e}"


def results_text(results: Mapping[str, Any]) -> str:
    """The results of an evaluation: numbers in a line, then a table for each vector or matrix, numbered from 0.

    loss: 0.0370   accuracy: 0.8499
    per_class_accuracy
       0      1
       0.9120 0.7878
    """
    numbers = {name: value for name, value in results.items() if not isinstance(value, list)}
    lines = ["\t".join(f"{name}: {figure(value)}" for name, value in numbers.items())]
    for name, value in results.items():
        lines += [name, *table(value)] if isinstance(value, list) else []
    return "\n".join(lines)


def table(values: list[Any]) -> list[str]:
    """The lines of a vector, or of a matrix with a number for each row and column; whole numbers without decimals."""
    matrix = bool(values) and isinstance(values[0], list)
    rows = values if matrix else [values]
    whole = all(math.isfinite(value) and value == int(value) and abs(value) < 1e15 for row in rows for value in row)
    shown = [[f"{value:.0f}" if whole else figure(value) for value in row] for row in rows]
    columns = [str(column) for column in range(len(rows[0]) if rows else 0)]
    width = max((len(text) for row in (columns, *shown) for text in row), default=0)
    first = len(str(len(rows) - 1))
    heads = [" " * first, *(f"{row:>{first}}" for row in range(len(rows)))] if matrix else ["", ""]
    lines = [
        [*filter(None, [head]), *(f"{text:>{width}}" for text in row)]
        for head, row in zip(heads, (columns, *shown), strict=True)
    ]
    return ["  " + "  ".join(line) for line in lines]


def summary_text(summary: Summary) -> str:
    """The lines at the end of training."""
    best = f"best epoch {summary.best_epoch} ({summary.watched} loss {figure(summary.best_loss)})"
    epochs = "1 epoch" if summary.epochs == 1 else f"{summary.epochs} epochs"
    lines = [f"{epochs}, {best}" if summary.best_epoch else epochs]
    if summary.stopped_early:
        lines.append(f"stopped early: the {summary.watched} loss no longer improved")
    if summary.trained:
        lines.append(f"{summary.steps_per_second:,.0f} steps/s, {summary.seconds_per_epoch:.2f} sec per epoch")
    else:
        lines.append("nothing left to train")
    return "\n".join([*lines, str(summary.folder)])


def _new_bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    # No refresh thread: it would take time from the steps. The bar is transient; the line of the epoch replaces it.
    return Progress(*columns, console=Console(file=stream), auto_refresh=False, transient=True)
