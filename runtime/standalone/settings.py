"""The settings of a file; in the file these names have the values of its model."""

from __future__ import annotations

from runtime.program import Bind

# The data set to read without --data
DATA: str | None = None
BATCH = 128  # examples per step; the last step of an epoch may have fewer
EPOCHS = 1
SEED = 0  # of initial weights, order of the data and dropout
SHUFFLE = True  # whether every epoch has a different order
PATIENCE: int | None = None  # epochs without a better test loss before training stops
METRICS: tuple[str, ...] = ()
# Totals of metrics, and how each combines over batches: sum, max or min
TOTALS: dict[str, str] = {}
CLASSES: dict[str, int] = {}  # number of valid values, for arrays of indices
VALIDATION: float | None = None  # share of the training rows that are set apart for patience and the best epoch
DTYPES: dict[str, str] = {}  # of inputs and targets, as the graphs take them
# Classes, how arrays are stored and scaled, parameters
ABOUT = ""
ARENA_BYTES = 0  # memory for all tensors
GRAPHS: dict[str, Bind] = {}
