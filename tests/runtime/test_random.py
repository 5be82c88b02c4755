"""Random draws: a function of (seed, step, stream), with the documented bits and distribution."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.random import draw, fill_uniform

DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
WORD = 2**64 - 1


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10 as published, in Python integers."""
    for _ in range(10):
        first, second = MULTIPLIERS[0] * counter[0], MULTIPLIERS[1] * counter[2]
        counter = (
            (second >> 64) ^ counter[1] ^ key[0],
            second & WORD,
            (first >> 64) ^ counter[3] ^ key[1],
            first & WORD,
        )
        key = ((key[0] + WEYL[0]) & WORD, (key[1] + WEYL[1]) & WORD)
    return counter


def test_uniform_draws_are_the_stated_bits():
    seed, step, stream = 2**63 - 5, 7, 3
    words = [word for block in (1, 2, 3) for word in philox((seed, stream), (block, 0, step, 0))]
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    expected = np.array([(half >> 8) * 2.0**-24 for half in halves], np.float32)
    np.testing.assert_array_equal(draw(seed, step, stream, (24,), "uniform"), expected)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_draw_depends_on_seed_step_and_stream_alone(distribution: str):
    def at(seed: int, step: int, stream: int) -> bytes:
        return draw(seed, step, stream, (4, 8), distribution).tobytes()

    assert at(1, 2, 3) == at(1, 2, 3)
    assert len({at(1, 2, 3), at(2, 2, 3), at(1, 3, 3), at(1, 2, 4), at(-1, 2, 3)}) == 5


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 4)])
def test_draws_have_shape_and_dtype(distribution: str, shape: tuple[int, ...]):
    values = draw(1, 2, 3, shape, distribution)
    assert values.shape == shape and values.dtype == np.float32


def test_draws_follow_their_distributions():
    uniform, normal, truncated = (draw(0, 0, 0, (200_000,), name).astype("float64") for name in DISTRIBUTIONS)
    assert uniform.min() >= 0.0 and uniform.max() < 1.0
    assert abs(uniform.mean() - 0.5) < 0.005 and abs(uniform.var() - 1.0 / 12.0) < 0.001
    assert abs(normal.mean()) < 0.01 and abs(normal.std() - 1.0) < 0.01 and np.abs(normal).max() > 3.0
    # The standard deviation of a normal truncated at 2 sigma is 0.8796.
    assert np.abs(truncated).max() <= 2.0 and abs(truncated.mean()) < 0.01 and abs(truncated.std() - 0.8796) < 0.01


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_fill_writes_the_same_numbers_in_place(threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.cpu.threads.thread_count", lambda: threads)
    for shape in ((5, 3), (301, 333)):
        out = np.empty(shape, np.float32)
        fill_uniform(out, 9, 8, 7)
        np.testing.assert_array_equal(out, draw(9, 8, 7, shape, "uniform"))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("width", [(), (3,), (2, 8), (0,)])
def test_rows_have_the_same_numbers_in_any_batch(distribution: str, width: tuple[int, ...]):
    rows = draw(1, 2, 3, (50, *width), distribution, 0)
    for first, count in ((0, 1), (1, 7), (13, 37), (49, 1)):
        part = draw(1, 2, 3, (count, *width), distribution, first)
        np.testing.assert_array_equal(part, rows[first : first + count])
    assert 0 in width or len(np.unique(rows, axis=0)) == 50


def test_uniform_rows_continue_the_stream():
    np.testing.assert_array_equal(draw(1, 2, 3, (4, 5), "uniform", 3), draw(1, 2, 3, (7, 5), "uniform")[3:])


@pytest.mark.parametrize("threads", [1, 3])
def test_fill_writes_rows_from_any_place(threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runtime.cpu.threads.thread_count", lambda: threads)
    out = np.empty((301, 333), np.float32)
    fill_uniform(out, 9, 8, 7, 5)
    np.testing.assert_array_equal(out, draw(9, 8, 7, (306, 333), "uniform")[5:])
