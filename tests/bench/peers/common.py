"""Shared by all peers: the digits, the order of the batches, and the clock."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from runtime.datasets import digits

MODELS = ("softmax", "mlp", "cnn", "separable_cnn", "bilstm")
BATCH = 128
IMAGES = 60 * BATCH
REPEATS = 5
SECONDS = 0.3  # length of each repeat, and of the warm-up


@dataclass(frozen=True)
class Recipe:
    """The settings of SGD in models/*.nn. The decay of bilstm.nn, 1e-6 a step, is left out: it does not affect the time."""

    lr: float
    momentum: float = 0.0


RECIPES = {
    "softmax": Recipe(0.5),
    "mlp": Recipe(0.5),
    "cnn": Recipe(0.5),
    "separable_cnn": Recipe(0.05, momentum=0.9),
    "bilstm": Recipe(0.1, momentum=0.9),
}


def draw_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images u8[N, 28, 28] and labels u8[N]."""
    split = digits.draw_sheet(digits.Sheet(key=0x62656E63, writers=16, images=IMAGES))
    return split.arrays["image"], split.arrays["label"]


def float_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images f32[N, 28, 28] in [0, 1] and labels i64[N], as the other frameworks get them."""
    images, labels = draw_digits()
    return images.astype(np.float32) / 255, labels.astype(np.int64)


def orders() -> Iterator[np.ndarray]:
    """Yields the examples of the next batch, without end."""
    shuffled = np.random.default_rng(0).permutation(IMAGES).reshape(-1, BATCH)
    while True:
        yield from shuffled


def measure(step: Callable[[], object], finish: Callable[[], object] = lambda: None) -> list[float]:
    """Milliseconds per step, one figure for each repeat of SECONDS, after a warm-up of the same length.

    `finish` waits for the work that the steps have started.
    """
    step()  # compiles, or makes the views of the arena
    finish()
    count, start = 0, perf_counter()
    while perf_counter() - start < SECONDS:
        step()
        finish()
        count += 1
    steps = max(1, round(count * SECONDS / (perf_counter() - start)))
    figures = []
    for _ in range(REPEATS):
        start = perf_counter()
        for _ in range(steps):
            step()
        finish()
        figures.append((perf_counter() - start) / steps * 1e3)
    return figures


def report(figures: list[float], **versions: str) -> None:
    """The answer to the parent process: one line of JSON."""
    json.dump({"milliseconds": statistics.median(figures), "versions": versions}, sys.stdout)
    print()
