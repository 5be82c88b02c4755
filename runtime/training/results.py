"""The results of training: of one epoch, the position of a run after it, the summary of a session, and JSON lines."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Epochs in the history of a position, and numbers in them, so that a checkpoint stays small; the log has all epochs.
HISTORY_LIMIT, HISTORY_NUMBERS = 1000, 100_000
DEEPEST_LIST = 2  # a metric is a number, a vector or a matrix


@dataclass(frozen=True)
class EpochResult:
    """The results of one epoch: loss and metrics over the examples, and the seconds since the run started.

    A metric is a number, or a vector or matrix of numbers as nested lists.
    """

    epoch: int
    train: dict[str, Any]
    test: dict[str, Any]
    seconds: float
    validation: dict[str, Any] | None = None  # if rows are set apart for it

    @property
    def watched(self) -> dict[str, Any]:
        """The results that patience and the best epoch go by."""
        return self.test if self.validation is None else self.validation

    @property
    def record(self) -> dict[str, Any]:
        """The fields in a log and in a checkpoint."""
        values = asdict(self)
        return values if self.validation is not None else {k: v for k, v in values.items() if k != "validation"}

    @property
    def numbers(self) -> list[Any]:
        """All numbers, those of vectors and matrices one by one."""
        found: list[Any] = [self.epoch, self.seconds, *self.train.values(), *self.test.values()]
        found += (self.validation or {}).values()
        for _ in range(DEEPEST_LIST):
            found = [inner for value in found for inner in (value if isinstance(value, list) else [value])]
        return found

    @property
    def kept(self) -> int:
        """How many epochs like this one the history of a position has."""
        return min(HISTORY_LIMIT, max(1, HISTORY_NUMBERS // len(self.numbers)))


@dataclass(frozen=True)
class Position:
    """The position of a run at the end of an epoch. Epoch 0 is the freshly initialized program."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf  # the lowest loss so far on the validation rows, or else on the test rows
    history: tuple[EpochResult, ...] = ()

    def after(self, result: EpochResult) -> Position:
        """The position one epoch later."""
        best = (self.best_epoch, self.best_loss)
        if result.watched["loss"] < self.best_loss:
            best = (result.epoch, result.watched["loss"])
        return Position(result.epoch, *best, (*self.history, result)[-result.kept :])

    def is_final(self, epochs: int, patience: int | None) -> bool:
        """Whether all epochs are done, or the last `patience` of them (at least 1) brought no better loss."""
        return self.epoch >= epochs or (patience is not None and self.epoch - self.best_epoch >= max(patience, 1))


@dataclass(frozen=True)
class Summary:
    """A finished training. `train` and `test` are those of the last epoch; the speeds are those of this session."""

    epochs: int  # completed in all
    trained: int  # of these, in this session
    best_epoch: int
    best_loss: float  # of the `watched` rows
    train: dict[str, Any]
    test: dict[str, Any]
    steps_per_second: float  # training steps only
    seconds_per_epoch: float  # with evaluation and checkpoints
    stopped_early: bool
    folder: Path
    watched: str = "test"  # or "validation"


def json_line(record: dict[str, Any]) -> str:
    """One line of strict JSON: a metric that is not a number becomes null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(clean(record), allow_nan=False) + "\n"
