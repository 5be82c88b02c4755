"""Numerical problems: the checks while training runs, and the records that generated source makes of a step.

Always checked: the loss of every step (runtime/feeding.py), its trend, and all variables once an epoch, before they are
saved. With --check-numerics also all variables after every step; a copy from before the step is kept, so that it can be
run again. The compiler finds the first bad op of a step (compiler/numerics).
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from runtime.errors import quoted, shortened
from runtime.program import Arrays

SPAN = 20  # steps over which the trend of the loss is computed
GROWTH = 10.0  # times the first loss: the user is warned of a larger one
LARGEST_RATE = 0.1  # that is suggested
LEARNING_RATE = re.compile(r"(?<=\blr=)[0-9][0-9.eE+-]*")  # in the text of the optimizer

# Variables ------------------------------------------------------------------------------------------------------------


def all_finite(array: np.ndarray) -> bool:
    """Whether there is neither NaN nor Inf. The sum is checked first: if it is finite, so are all numbers."""
    return bool(array.dtype.kind != "f" or np.isfinite(array.sum()) or np.isfinite(array).all())


def finite_names(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The names of the arrays that have only finite numbers."""
    return tuple(name for name, array in arrays.items() if all_finite(array))


class Guard:
    """Checks the variables after each step, and keeps a copy of them from before it.

    Variables that are not finite at the start, such as a minimum that starts at infinity, are not checked.
    """

    def __init__(self, variables: Arrays):
        self.variables = variables
        self.before = {name: array.copy() for name, array in variables.items()}
        self.watched: tuple[str, ...] = finite_names(variables)

    def keep(self) -> None:
        """Copies the variables before a step."""
        for name, array in self.variables.items():
            np.copyto(self.before[name], array)

    def bad(self) -> tuple[str, ...]:
        """The variables that have a NaN or an infinity after a step."""
        return tuple(name for name in self.watched if not all_finite(self.variables[name]))


# The trend of the loss ------------------------------------------------------------------------------------------------


class Trend:
    """The losses of the last steps; calls `warn` once if they are far above the first, which may be given."""

    def __init__(self, warn: Callable[[str], None] = lambda growth: None, first: float = math.nan):
        self.warn = warn
        self.first = first
        self.recent: deque[float] = deque(maxlen=SPAN)
        self.count = 0

    def add(self, loss: float) -> None:
        self.recent.append(loss)
        self.count += 1
        if self.first != self.first:
            self.first = loss
        if not self.count % SPAN:
            self._compare()

    def _compare(self) -> None:
        mean = sum(self.recent) / SPAN
        if mean > GROWTH * self.first > 0:  # for a loss below zero there is no such rule
            self.warn(f"the loss grew {show_factor(mean / self.first)} in {self.count} steps")
            self.first = math.inf

    @property
    def growth(self) -> str:
        """`the loss grew 40x in 20 steps (2.3 to 92)`, or empty if it did not grow."""
        if len(self.recent) < 2:
            return ""
        lowest, last = min(self.recent), self.recent[-1]
        steps = len(self.recent) - 1 - self.recent.index(lowest)
        if not steps or not 0 < lowest * 2 <= last:
            return ""
        span = f"{steps} step{'s' if steps > 1 else ''}"
        return f"the loss grew {show_factor(last / lowest)} in {span} ({lowest:.3g} to {last:.3g})"


def show_factor(factor: float) -> str:
    return f"{factor:.3g}x" if factor < 1e6 else f"{factor:.0e}x"


def advice(growth: str, optimizer: str) -> str:
    """A hint against a loss that grows, with the optimizer as written in the train block, if that is known."""
    written = f"optimizer = {optimizer}" if optimizer else ""
    facts = "; ".join(part for part in (growth, written) if part)
    match = LEARNING_RATE.search(optimizer)
    try:
        rate = min(float(match[0]) / 10, LARGEST_RATE) if match else 0.0
    except ValueError:
        rate = 0.0
    if not rate or not match:
        return f"{facts}; lower the learning rate (lr) of the optimizer" if facts else "lower the learning rate (lr)"
    lower = f"{optimizer[: match.start()]}{rate:g}{optimizer[match.end() :]}".replace('"', "'")
    return f'{facts}; lower the learning rate: --set train.optimizer="{lower}"'


def show_names(names: tuple[str, ...], most: int = 5) -> str:
    return shortened(list(map(quoted, names)), most)


# Records of generated source ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """The numbers of a tensor: smallest, largest and mean of the finite ones, and the counts of the others."""

    low: float
    high: float
    mean: float
    nans: int
    infinities: int
    size: int

    @property
    def bad(self) -> bool:
        return self.nans + self.infinities > 0

    def joined(self, other: Range) -> Range:
        """The range of both together."""
        counts = [each.size - each.nans - each.infinities for each in (self, other)]
        total = sum(counts)
        means = [each.mean * count for each, count in zip((self, other), counts, strict=True) if count]
        return Range(
            low=float(np.fmin(self.low, other.low)),
            high=float(np.fmax(self.high, other.high)),
            mean=sum(means) / total if total else math.nan,
            nans=self.nans + other.nans,
            infinities=self.infinities + other.infinities,
            size=self.size + other.size,
        )


@np.errstate(all="ignore")
def range_of(array: np.ndarray | float) -> Range:
    """The range of an array or number; smallest, largest and mean are NaN if no number is finite."""
    values = np.asarray(array)
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    size, nans = values.size, 0
    if not all_finite(values):
        nans = int(np.count_nonzero(np.isnan(values)))
        values = values[np.isfinite(values)]
    infinities = size - nans - values.size
    if not values.size:
        return Range(math.nan, math.nan, math.nan, nans, infinities, size)
    low, high, mean = float(values.min()), float(values.max()), float(values.mean(dtype=np.float64))
    return Range(low, high, mean, nans, infinities, size)


Ranges = tuple[Range, ...]


def ranges_of(*arrays: np.ndarray | float) -> Ranges:
    """The ranges of the operands of an op, before its result may overwrite one of them."""
    return tuple(map(range_of, arrays))


def selected_ranges(condition: np.ndarray, yes: np.ndarray | float, no: np.ndarray | float) -> Ranges:
    """The same for `select`: of the elements that it selects."""
    shape = np.broadcast_shapes(*map(np.shape, (condition, yes, no)))
    where = np.broadcast_to(condition, shape)
    selected = (np.broadcast_to(yes, shape)[where], np.broadcast_to(no, shape)[~where])
    return ranges_of(condition, *selected)


class Probe:
    """Called after each op: keeps its number, and the ranges of its operands and of its results."""

    def __init__(self) -> None:
        # In running order, except for ops that run at the same time.
        self.records: list[tuple[int, Ranges, Ranges]] = []

    def __call__(self, number: int, operands: Ranges, *results: np.ndarray) -> None:
        self.records.append((number, operands, ranges_of(*results)))
