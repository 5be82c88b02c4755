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
SPARE = 1.5  # bytes: 1 in 22 is beyond, whose index takes 8 bytes, and twice while the blocks are joined
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
    values = np.empty(shape, np.float32)
    fill(values, seed, step, stream, distribution, first)
    return values


def fill(out: np.ndarray, seed: int, step: int, stream: int, distribution: str, first: int | None = None) -> None:
    """Writes draw(…) to `out`, a contiguous float32 array."""
    if distribution == "uniform":
        fill_uniform(out, seed, step, stream, first or 0)
    elif first is None:
        fill_normal(out, generator(seed, step, stream), distribution)
    else:
        for row in range(len(out)):
            fill_normal(out[row : row + 1], generator(seed, step, stream, row=first + row + 1), distribution)


def fill_normal(out: np.ndarray, source: np.random.Generator, distribution: str) -> None:
    """The next normal numbers of a generator; those of "truncated_normal" are drawn again if they are beyond it.

    Needs space for the places of those that are drawn again, SPARE bytes for each number.
    """
    numbers = out.reshape(-1)
    source.standard_normal(out=numbers, dtype=np.float32)
    if distribution != "truncated_normal":
        return
    blocks = range(0, numbers.size, MANY)
    found = [start + np.flatnonzero(np.abs(numbers[start : start + MANY]) > TRUNCATION) for start in blocks]
    beyond = np.concatenate(found) if found else np.empty(0, np.intp)
    while beyond.size:
        numbers[beyond] = source.standard_normal(beyond.size, np.float32)
        beyond = beyond[np.abs(numbers[beyond]) > TRUNCATION]


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
