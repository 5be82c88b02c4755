"""Random numbers as a function of (seed, step, stream): no state, so a run resumes bit-exactly.

Bits come from Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) with the key
(seed, stream) and the counter (block, 0, step, 0); NumPy counts blocks from 1. Each 64-bit word gives two 32-bit
numbers, low half first, and a uniform float32 is the top 24 bits of one, times 2**-24: what a GPU kernel can repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator

WORD = 2**64 - 1
TRUNCATION = 2.0  # a truncated normal is drawn again beyond this many standard deviations


def generator(seed: int, step: int, stream: int) -> Generator:
    """NumPy's generator at the start of a stream; a negative seed or step counts as its 64-bit pattern."""
    from numpy.random import Generator, Philox  # imported late: most commands draw nothing

    key, counter = np.zeros(2, np.uint64), np.zeros(4, np.uint64)
    key[0], key[1], counter[2] = seed & WORD, stream & WORD, step & WORD
    return Generator(Philox(key=key, counter=counter))


def draw(seed: int, step: int, stream: int, shape: tuple[int, ...], distribution: str) -> np.ndarray:
    """A float32 array; the distribution is "uniform" in [0, 1), "normal" or "truncated_normal", both of unit scale."""
    source = generator(seed, step, stream)
    if distribution == "uniform":
        return np.asarray(source.random(shape, np.float32))
    values = np.asarray(source.standard_normal(shape, np.float32))
    if distribution == "truncated_normal":
        while (beyond := np.abs(values) > TRUNCATION).any():
            values[beyond] = source.standard_normal(np.count_nonzero(beyond), np.float32)
    return values


def fill_uniform(out: np.ndarray, seed: int, step: int, stream: int) -> None:
    """Writes draw(…, "uniform") into `out`, a contiguous float32 array, without a temporary array of its size."""
    generator(seed, step, stream).random(out=out, dtype=np.float32)
