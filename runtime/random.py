"""Random numbers as a function of (seed, step, stream): without state, so that a run resumes bit for bit.

Bits come from Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with the key
(seed, stream) and the counter (block, 0, step, 0); NumPy counts blocks from 1. Each 64-bit word gives two 32-bit
numbers, low half first, and a uniform float32 is the top 24 bits of one, times 2**-24, which a GPU kernel can repeat.
NumPy imports its random numbers when they are first used.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from runtime.cpu.threads import parts, together

WORD = 2**64 - 1
BLOCK = 8  # float32 numbers of one block of Philox
MANY = 16_384  # numbers that are worth starting a thread
TRUNCATION = 2.0  # standard deviations beyond which a truncated normal is drawn again


def generator(seed: int, step: int, stream: int, block: int = 0) -> np.random.Generator:
    """NumPy's generator at a block of a stream; for a negative seed or step, its 64-bit pattern is used."""
    key, counter = np.zeros(2, np.uint64), np.zeros(4, np.uint64)
    key[0], key[1] = seed & WORD, stream & WORD
    counter[0], counter[2] = block, step & WORD
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def draw(seed: int, step: int, stream: int, shape: tuple[int, ...], distribution: str) -> np.ndarray:
    """A float32 array; the distribution is "uniform" in [0, 1), "normal" or "truncated_normal", of unit scale."""
    source = generator(seed, step, stream)
    if distribution == "uniform":
        return np.asarray(source.random(shape, np.float32))
    values = np.asarray(source.standard_normal(shape, np.float32))
    if distribution == "truncated_normal":
        while (beyond := np.abs(values) > TRUNCATION).any():
            values[beyond] = source.standard_normal(np.count_nonzero(beyond), np.float32)
    return values


def fill_uniform(out: np.ndarray, seed: int, step: int, stream: int) -> None:
    """Writes draw(…, "uniform") to `out`, a contiguous float32 array; each thread draws some blocks."""
    numbers = out.reshape(-1)
    count = parts(numbers.size // MANY)
    cuts = [numbers.size // BLOCK * i // count * BLOCK for i in range(count)] + [numbers.size]

    def fill(first: int, last: int) -> None:
        generator(seed, step, stream, first // BLOCK).random(out=numbers[first:last], dtype=np.float32)

    together(*(partial(fill, first, last) for first, last in pairwise(cuts)))
