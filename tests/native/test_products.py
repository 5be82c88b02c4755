"""Matrix products in C (runtime/native/products.h) against NumPy's in f64.

products.c runs the cases: it checks that each result is written once, and nothing outside of the arrays.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
import pytest

import tests.native.compiler_or_skip  # noqa: F401  (skips this file where there is no compiler)
from runtime.native.compilers import candidates

HEADERS = Path(__file__).parents[2] / "runtime" / "native"
SOURCE = Path(__file__).with_name("products.c")
FLAGS = "-std=gnu11 -O2 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd -Wall -Werror"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -DEXACT -O1"
BUILDS = {
    "native": "-march=native",
    "gcc 9": "-march=native -DNNC_GCC_9",
    "haswell": "-march=haswell",
    "x86-64": "-march=x86-64",
    "scalar": "-DNNC_SCALAR",
    "sanitizers": f"-march=native {SANITIZERS}",
    "sanitizers-haswell": f"-march=haswell {SANITIZERS}",
}


@dataclass(frozen=True)
class Case:
    """A product. The layout of an operand: `plain`, `transposed`, or `spread`: no two numbers next to each other."""

    batch: int
    rows: int
    columns: int
    depth: int
    a: str = "plain"
    b: str = "plain"
    parts: int = 1
    gap: int = 0  # unused numbers at the end of each row in memory
    repeated: str = ""  # the operands that all batches share

    @cached_property
    def left(self) -> tuple[list[int], int]:
        return self.strides("a", self.a, self.rows, self.depth)

    @cached_property
    def right(self) -> tuple[list[int], int]:
        return self.strides("b", self.b, self.depth, self.columns)

    def strides(self, name: str, layout: str, rows: int, columns: int) -> tuple[list[int], int]:
        """Batch, row and column strides, and the numbers from the first to the last one."""
        apart = 3 if layout == "spread" else 1
        inner, outer = (rows, columns) if layout == "transposed" else (columns, rows)
        line = (inner + self.gap) * apart
        row, column = (apart, line) if layout == "transposed" else (line, apart)
        batch = 0 if name in self.repeated else outer * line
        if not (rows and columns and self.batch):
            return [batch, row, column], 0
        return [batch, row, column], (self.batch - 1) * batch + (rows - 1) * row + (columns - 1) * column + 1


def operand(draws: np.random.Generator, shape: tuple[int, ...], strides: list[int], size: int, dtype: type):
    """Memory with NaN in all gaps, and the operand as a view of it."""
    memory = np.full(size, np.nan, dtype)
    in_bytes = [stride * memory.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(memory, shape, in_bytes) if size else np.zeros(shape, dtype)
    view[...] = draws.standard_normal((1, *shape[1:]) if strides[0] == 0 else shape)
    return memory, view


SIZES = (0, 1, 2, 3, 5, 7, 8, 10, 14, 15, 16, 17, 24, 29, 31, 32, 33, 48, 50, 64, 65, 70)
LARGE = [
    Case(1, 512, 10, 128, a="transposed", parts=2),
    Case(1, 128, 100, 784, parts=2),
    Case(1, 60, 70, 3000, a="transposed", parts=3),
    Case(1, 300, 1200, 400, b="transposed"),  # several blocks of each kind
    Case(1, 500, 600, 800, a="transposed", b="transposed", parts=2),
    Case(1, 100, 130, 1024, parts=2),  # rows 4096 bytes apart
    Case(1, 2, 2000, 700),
    Case(1, 2000, 2, 700, parts=2),
    Case(1, 1, 3000, 500, b="transposed", parts=2),
    Case(1, 3000, 1, 500, parts=4),
    Case(1, 1, 1, 30000, parts=2),
    Case(1, 3, 2, 9001, a="transposed", parts=3),
    Case(1, 12, 24, 20000, a="transposed", parts=4),
    Case(3, 4, 5, 9001, b="transposed", parts=2),
    Case(1, 3000, 1, 1, parts=2),
    Case(40, 16, 16, 64, b="transposed", parts=3),
    Case(3, 70, 40, 100, repeated="b", parts=2),
    Case(3, 70, 40, 100, repeated="a", parts=2),
]


def random_case(random: Random, scale: int = 1) -> Case:
    return Case(
        batch=random.choice((0, 1, 1, 1, 2, 3, 5)),
        rows=random.choice(SIZES) * random.choice((1, scale)),
        columns=random.choice(SIZES) * random.choice((1, scale)),
        depth=random.choice(SIZES) * random.choice((1, scale)),
        a=random.choice(("plain", "transposed", "spread")),
        b=random.choice(("plain", "transposed", "spread")),
        parts=random.randint(1, 4),
        gap=random.choice((0, 0, 1, 13)),
        repeated=random.choice(("", "", "a", "b", "ab")),
    )


@pytest.fixture(scope="module", params=BUILDS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    built = tmp_path_factory.mktemp("native") / "products"
    flags = [*FLAGS.split(), *BUILDS[request.param].split(), f"-I{HEADERS}"]
    command = [*next(iter(candidates())), *flags, str(SOURCE), "-o", str(built), "-lpthread"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    if subprocess.run([str(built)], stdin=subprocess.DEVNULL).returncode < 0:
        pytest.skip(f"this processor does not run {request.param}")
    yield built


def run(program: Path, cases: list[Case], wide: bool) -> Iterator[tuple[Case, np.ndarray, np.ndarray, np.ndarray]]:
    """Runs all cases in one process: each with its result, the one expected, and the sum of absolute products."""
    dtype = np.float64 if wide else np.float32
    sent, expected = [], []
    for seed, case in enumerate(cases):
        draws = np.random.default_rng(seed)
        (a_strides, a_size), (b_strides, b_size) = case.left, case.right
        a, left = operand(draws, (case.batch, case.rows, case.depth), a_strides, a_size, dtype)
        b, right = operand(draws, (case.batch, case.depth, case.columns), b_strides, b_size, dtype)
        exact = np.longdouble if wide else np.float64
        result = left.astype(exact) @ right.astype(exact)
        sizes = [case.batch, case.rows, case.columns, case.depth, *a_strides, *b_strides, a.size, b.size, result.size]
        sent += [np.array([wide, case.parts, *sizes], np.int64).tobytes(), a.tobytes(), b.tobytes()]
        expected.append((case, result, np.abs(left).astype(float) @ np.abs(right).astype(float)))
    ran = subprocess.run([str(program)], input=b"".join(sent), capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    results, at = np.frombuffer(ran.stdout, dtype), 0
    for case, result, scale in expected:
        yield case, results[at : at + result.size].reshape(result.shape), result, scale
        at += result.size
    assert at == results.size


def check(program: Path, cases: list[Case], wide: bool = False) -> None:
    for case, got, expected, scale in run(program, cases, wide):
        bound = np.finfo(got.dtype).eps * (2 + np.sqrt(case.depth)) * scale
        assert np.all(np.abs(got - expected) <= bound), (case, np.abs(got - expected).max())


@pytest.mark.parametrize("wide", [False, True])
def test_large_products(program: Path, wide: bool) -> None:
    check(program, LARGE, wide)


@pytest.mark.parametrize("seed", range(4))
def test_random_products(program: Path, seed: int) -> None:
    random = Random(seed)
    check(program, [random_case(random) for _ in range(120)])


def test_random_products_in_f64(program: Path) -> None:
    random = Random("f64")
    check(program, [random_case(random) for _ in range(120)], wide=True)


def test_random_products_of_several_blocks(program: Path) -> None:
    random = Random("blocks")
    check(program, [random_case(random, 8) for _ in range(40)])


def test_the_same_bits_for_the_same_number_of_threads(program: Path) -> None:
    first, second = (list(run(program, LARGE, wide=False)) for _ in range(2))
    for (case, got, _, _), (_, again, _, _) in zip(first, second, strict=True):
        assert np.array_equal(got, again), case
