"""The settings of a file; in the file these names have the values of its model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Arrays = dict[str, np.ndarray]
Bound = tuple[Callable[[], None], Arrays, Arrays]  # runs a graph once, its inputs to fill, its results to read

# What is read where --data names nothing
DATA: str | None = None
BATCH = 128  # examples per step; the last step of an epoch may have fewer
EPOCHS = 1
SEED = 0  # of first weights, order of the data and dropout
SHUFFLE = True  # whether every epoch has an order of its own
PATIENCE: int | None = None  # epochs without a better test loss before training stops
METRICS: tuple[str, ...] = ()
CLASSES: dict[str, int] = {}  # how many values there are for arrays of indices
ARENA_BYTES = 0  # memory for all tensors
GRAPHS: dict[str, Callable[[np.ndarray, int], Bound]] = {}
