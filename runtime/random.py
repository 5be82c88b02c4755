"""Random numbers as a function of (seed, step, stream): without state, so that a run resumes bit for bit.

Bits come from Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with the key
(seed, stream) and the counter (block, 0, step, 0); NumPy counts blocks from 1. Each 64-bit word gives two 32-bit
numbers, low half first, and a uniform float32 is the top 24 bits of one, times 2**-24, which a GPU kernel can repeat.
Outside of training each row of the data has separate numbers, whatever the batch: uniform numbers of row n come n rows
later in the stream; row n of others, which need a varying number of bits, has the counter (block, n + 1, step, 0).
NumPy imports its random numbers when they are first used.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import prod

import numpy as np

from runtime.cpu.threads import parts, together

WORD = 2**64 - 1
BLOCK = 8  # float32 numbers of one block of Philox
MANY = 16_384  # numbers that are worth starting a thread
TRUNCATION = 2.0  # standard deviations beyond which a truncated normal is drawn again


def generator(seed: int, step: int, stream: int, block: int = 0, row: int = 0) -> np.random.Generator:
    """NumPy's generator at a block of a stream; for a negative seed or step, its 64-bit pattern is used."""
    key, counter = np.zeros(2, np.uint64), np.zeros(4, np.uint64)
    key[0], key[1] = seed & WORD, stream & WORD
    counter[0], counter[1], counter[2] = block, row, step & WORD
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def draw(
    seed: int, step: int, stream: int, shape: tuple[int, ...], distribution: str, first: int | None = None
) -> np.ndarray:
    """A float32 array; the distribution is "uniform" in [0, 1), "normal" or "truncated_normal", of unit scale.

    With `first`, these are rows first, first + 1, … of an endless array: each row has the same numbers in every draw.
    """
    if distribution == "uniform":
        values = np.empty(shape, np.float32)
        fill_uniform(values, seed, step, stream, first or 0)
        return values
    if first is None:
        return normal(generator(seed, step, stream), shape, distribution)
    values = np.empty(shape, np.float32)
    for row in range(shape[0]):
        values[row] = normal(generator(seed, step, stream, row=first + row + 1), shape[1:], distribution)
    return values


def normal(source: np.random.Generator, shape: tuple[int, ...], distribution: str) -> np.ndarray:
    """The next normal numbers of a generator; those of "truncated_normal" are drawn again if they are beyond it."""
    values = np.asarray(source.standard_normal(shape, np.float32))
    if distribution == "truncated_normal":
        while (beyond := np.abs(values) > TRUNCATION).any():
            values[beyond] = source.standard_normal(np.count_nonzero(beyond), np.float32)
    return values


def fill_uniform(out: np.ndarray, seed: int, step: int, stream: int, first: int = 0) -> None:
    """Writes draw(…, "uniform", first) to `out`, a contiguous float32 array; each thread draws some blocks."""
    numbers = out.reshape(-1)
    place = first * prod(out.shape[1:])  # of the first number in the stream
    count = parts(numbers.size // MANY)
    cuts = [numbers.size // BLOCK * i // count * BLOCK for i in range(count)] + [numbers.size]

    def fill(start: int, end: int) -> None:
        block, inside = divmod(place + start, BLOCK)
        source = generator(seed, step, stream, block)
        if inside:
            source.random(inside, np.float32)  # the numbers of the block that come before
        source.random(out=numbers[start:end], dtype=np.float32)

    together(*(partial(fill, first, last) for first, last in pairwise(cuts)))
