"""The models beyond the five recipes: their batches, optimizers and synthetic data, the same for all peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "models"
SEED = 7
FEW_BATCHES = 4  # of data, so that not every step has the same
Arrays = dict[str, np.ndarray]
COLUMNS, CATEGORIES = 26, 100_000


def images(side: int, channels: int, random: np.random.Generator, rows: int) -> Arrays:
    """A picture for each of ten classes, and noise."""
    label = random.integers(0, 10, rows)
    pictures = np.random.default_rng(SEED).normal(0, 1, (10, side, side, channels))
    image = pictures[label] + random.normal(0, 0.5, (rows, side, side, channels))
    return {"image": image.astype(np.float32), "label": label.astype(np.int32)}


def segments(random: np.random.Generator, rows: int) -> Arrays:
    """Noise whose first two channels decide the class of each pixel."""
    image = random.normal(0, 1, (rows, 64, 64, 3)).astype(np.float32)
    return {"image": image, "label": ((image[..., 0] > 0) + 2 * (image[..., 1] > 0)).astype(np.int32)}


def text(random: np.random.Generator, rows: int) -> Arrays:
    """Bytes that each follow from the one before, from a start and a step drawn for each text."""
    start, step = random.integers(0, 256, (rows, 1)), random.integers(1, 4, (rows, 1))
    token = (start + step * np.arange(129)) % 256
    return {"token": token[:, :-1].astype(np.int32), "label": token[:, 1:].astype(np.int32)}


def pixels(random: np.random.Generator, rows: int) -> Arrays:
    drawn = images(28, 1, random, rows)
    return {**drawn, "image": drawn["image"].reshape(rows, 784, 1)}


def choices(random: np.random.Generator, rows: int) -> Arrays:
    """Categories and numbers; the first number decides the label."""
    number = random.normal(0, 1, (rows, 13)).astype(np.float32)
    category = random.integers(0, CATEGORIES, (rows, COLUMNS)).astype(np.int32)
    return {"category": category, "number": number, "label": (number[:, 0] > 0).astype(np.int32)}


def small_images(random: np.random.Generator, rows: int) -> Arrays:
    return images(32, 3, random, rows)


@dataclass(frozen=True)
class Beyond:
    """A model of tests/bench/models: what draws its data, the optimizer of its train block, and the batches to measure.

    Larger batches than these take more than some seconds a step or many gigabytes.
    """

    draw: Callable[[np.random.Generator, int], Arrays]
    lr: float
    momentum: float = 0.9
    adam: bool = False
    batches: tuple[int, ...] = (1, 8, 32)
    convolutional: bool = False
    sparse: bool = False  # whether a table is so large that PyTorch is faster with a sparse gradient

    def arrays(self, batch: int) -> Arrays:
        """Some batches of inputs and labels, by name."""
        return self.draw(np.random.default_rng(SEED), FEW_BATCHES * batch)


BEYOND = {
    "resnet18_16": Beyond(small_images, 0.02, batches=(1, 8, 32, 512), convolutional=True),
    "resnet18_64": Beyond(small_images, 0.02, convolutional=True),
    "mobilenetv2": Beyond(small_images, 0.02, convolutional=True),
    "unet": Beyond(segments, 0.05, convolutional=True),
    "vit_tiny": Beyond(small_images, 0.0003, adam=True),
    "gpt_tiny": Beyond(text, 0.001, adam=True),
    "gru_784": Beyond(pixels, 0.1, batches=(1, 8, 32, 512)),
    "embedding_mlp": Beyond(choices, 0.1, momentum=0, batches=(1, 8, 32, 512), sparse=True),
}


def places(batch: int) -> Iterator[slice]:
    """The rows of the next batch, without end."""
    return cycle([slice(start, start + batch) for start in range(0, FEW_BATCHES * batch, batch)])
