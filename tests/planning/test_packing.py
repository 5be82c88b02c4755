"""Packing: blocks that are live at the same time never overlap, and the arena is hardly larger than it must be."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.planning.packing import (
    ALIGNMENT,
    FEW,
    FOR_ALL,
    FOR_FEW,
    Block,
    Lifetime,
    aligned,
    assign_offsets,
    forward_in_time,
    most_live,
    peak_of_live,
)

BASE = 256
LIFETIMES = st.lists(
    st.builds(
        lambda size, first, length: (size, first, first + length),
        st.integers(0, 1000) | st.sampled_from([ALIGNMENT, 16 * ALIGNMENT, 2**40]),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
    max_size=40,
)
FEW_EXAMPLES = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def blocks_of(lifetimes: list[Lifetime]) -> list[Block]:
    return [Block(None, *lifetime) for lifetime in lifetimes]  # type: ignore[arg-type]


def pack(lifetimes: list[Lifetime]) -> tuple[list[Block], int]:
    blocks = blocks_of(lifetimes)
    return blocks, assign_offsets(blocks, BASE) - BASE


def check_apart(blocks: list[Block]) -> None:
    """Goes through time with the address ranges in use, sorted: a new one must fit between its two neighbours."""
    events = [(b.first, 1, b.offset, b.end) for b in blocks if b.bytes]
    events += [(b.last + 1, 0, b.offset, b.end) for b in blocks if b.bytes]
    used: list[tuple[int, int]] = []
    for _, begins, start, end in sorted(events):
        at = bisect_left(used, (start, end))
        if not begins:
            used.pop(at)
            continue
        assert at == 0 or used[at - 1][1] <= start
        assert at == len(used) or end <= used[at][0]
        used.insert(at, (start, end))


@given(LIFETIMES)
@FEW_EXAMPLES
def test_blocks_that_live_together_do_not_overlap(lifetimes: list[Lifetime]):
    blocks, size = pack(lifetimes)
    check_apart(blocks)
    assert all(block.offset >= BASE and block.offset % ALIGNMENT == 0 for block in blocks)
    assert size == max((aligned(block.end) - BASE for block in blocks), default=0)
    assert peak_of_live(blocks) <= size <= sum(aligned(block.bytes) for block in blocks)


@pytest.mark.parametrize("packing", FOR_FEW + FOR_ALL)
@given(lifetimes=LIFETIMES)
@FEW_EXAMPLES
def test_every_packing_keeps_them_apart(packing: Callable[[list[Lifetime]], list[int]], lifetimes: list[Lifetime]):
    rounded = sorted(((aligned(size), first, last) for size, first, last in lifetimes if size), reverse=True)
    blocks = blocks_of(rounded)
    for block, offset in zip(blocks, packing(rounded), strict=True):
        block.offset = offset
    check_apart(blocks)


@given(LIFETIMES, st.randoms(use_true_random=False))
@FEW_EXAMPLES
def test_the_order_of_the_blocks_does_not_matter(lifetimes: list[Lifetime], shuffling: random.Random):
    def placed(blocks: list[Block]) -> list[tuple[int, int, int, int]]:
        return sorted((block.bytes, block.first, block.last, block.offset) for block in blocks)

    shuffled = list(lifetimes)
    shuffling.shuffle(shuffled)
    assert placed(pack(lifetimes)[0]) == placed(pack(shuffled)[0])


@given(LIFETIMES)
@FEW_EXAMPLES
def test_blocks_of_one_size_are_packed_perfectly(lifetimes: list[Lifetime]):
    alike = [(ALIGNMENT, first, last) for _, first, last in lifetimes]
    assert pack(alike)[1] == most_live(alike)


@given(st.lists(st.integers(1, 1000), max_size=40))
@FEW_EXAMPLES
def test_nested_lives_are_packed_perfectly(sizes: list[int]):
    """As in a forward and a backward pass: what is made last is needed first."""
    nested = [(aligned(size), i, 2 * len(sizes) - i) for i, size in enumerate(sizes)]
    assert pack(nested)[1] == most_live(nested)
    ends = [offset + lifetime[0] for offset, lifetime in zip(forward_in_time(nested), nested, strict=True)]
    assert max(ends, default=0) == most_live(nested)


def training_step(layers: int, spread: float, seed: int) -> list[Lifetime]:
    """Lives as in a training step: some results of each layer wait for the backward pass, others are freed soon."""
    draw = random.Random(seed)
    lifetimes = []
    for i in range(layers):
        waits = draw.random() < 0.4
        lifetimes.append(
            (size(draw, spread), i, 2 * layers - i + draw.randint(0, 2) if waits else i + draw.randint(1, 3))
        )
    lifetimes += [(size(draw, spread), i, i + draw.randint(1, 3)) for i in range(layers, 2 * layers)]
    return lifetimes


def size(draw: random.Random, spread: float) -> int:
    return int(draw.lognormvariate(9, spread)) + 1


@pytest.mark.parametrize("layers", [10, 100, FEW])  # the last is too many for the best packings
@pytest.mark.parametrize("spread", [0.5, 1.5, 2.5])
def test_training_steps_are_packed_almost_perfectly(layers: int, spread: float):
    ratios = []
    for seed in range(20 if layers < FEW else 1):
        blocks, planned = pack(training_step(layers, spread, seed))
        check_apart(blocks)
        ratios.append(planned / peak_of_live(blocks))
    assert mean(ratios) <= 1.05 and max(ratios) <= 1.2


def test_gaps_are_reused():
    blocks, planned = pack([(64, 0, 9), (128, 0, 1), (128, 2, 3)])
    assert planned == 192
    assert blocks[1].offset == blocks[2].offset


def test_a_block_that_ends_where_another_begins_overlaps_with_it():
    assert pack([(64, 0, 1), (64, 1, 2)])[1] == 128


def test_no_bytes_need_no_place():
    assert pack([(0, 0, 9), (64, 0, 9)])[1] == 64
    assert pack([])[1] == 0
