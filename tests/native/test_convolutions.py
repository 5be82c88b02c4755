"""Convolutions in C (runtime/native/convolutions.h, depthwise.h) against the references of the ops, in f64.

convolutions.c runs the cases: it checks that each result is written once, and nothing outside of the arrays.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest

from compiler.ops.convolution import conv2d, filter_grad, input_grad
from compiler.ops.windows import output_size

HEADERS = Path(__file__).parents[2] / "runtime" / "native"
SOURCE = Path(__file__).with_name("convolutions.c")
FLAGS = "-std=gnu11 -O2 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd -Wall -Werror"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -DEXACT -Wno-unused-function -O1"
BUILDS = {
    "native": "-march=native",
    "haswell": "-march=haswell",
    "x86-64": "-march=x86-64",
    "scalar": "-DNNC_SCALAR",
    "sanitizers": f"-march=native {SANITIZERS}",
    "sanitizers-haswell": f"-march=haswell {SANITIZERS}",
}
OPS = ("conv2d", "conv2d_input_grad", "conv2d_filter_grad")


@dataclass(frozen=True)
class Case:
    n: int
    size: tuple[int, int]
    depth: int  # channels of a group
    filters: int  # of a group
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    parts: int = 1

    @property
    def output(self) -> tuple[int, int]:
        height, width = output_size(self.size, self.kernel, self.stride, self.padding, self.dilation)
        return height, width

    @property
    def sizes(self) -> list[int]:
        """The fields of Convolution."""
        (top, _), (left, _) = self.padding
        channels, filters = self.depth * self.groups, self.filters * self.groups
        ends = [self.groups, *self.stride, top, left, *self.dilation]
        return [self.n, *self.size, channels, filters, *self.kernel, *self.output, *ends]

    @property
    def workspace(self) -> int:
        """CONVOLUTION_WORKSPACE: the formula of its comment."""
        (height, width), (dilation_y, dilation_x) = self.kernel, self.dilation
        channels, filters = self.depth * self.groups, self.filters * self.groups
        deepest = max(channels, filters) // self.groups
        packed = max(2**19, 128 * height * width * deepest, 4 * height * width * filters)
        columns = 13 * max(self.stride) + (width - 1) * dilation_x + 1
        strip = max(2**19, 4 * ((height - 1) * dilation_y + 1) * deepest * columns)
        return -(-(packed + strip + 2**17 + 256) // 64) * 64


SAME = ((1, 1), (1, 1))
MODELS = [  # of networks, with few images
    Case(3, (28, 28), 1, 24, (5, 5), parts=2),
    Case(28, (12, 12), 24, 48, (5, 5), parts=2),
    Case(2, (32, 32), 3, 64, (3, 3), padding=SAME),
    Case(30, (4, 4), 96, 64, (3, 3), padding=SAME, parts=2),
    Case(30, (4, 4), 64, 40, (3, 3), padding=SAME),  # images 4096 bytes apart
    Case(9, (8, 8), 256, 16, (3, 3), stride=(2, 2), padding=SAME),  # so, but too large to be copied
    Case(20, (8, 8), 64, 128, (3, 3), stride=(2, 2), padding=SAME, parts=3),
    Case(5, (8, 8), 32, 64, (1, 1), stride=(2, 2), parts=2),
    Case(5, (7, 7), 20, 70, (1, 1), parts=4),
    Case(1, (4, 4), 96, 400, (3, 3), padding=SAME, parts=4),  # filters are shared
    Case(2, (6, 6), 256, 160, (3, 3), padding=SAME, parts=3),  # many sums: chunks
    Case(1, (1, 40), 3, 5, (1, 5), dilation=(1, 3), padding=((0, 0), (6, 6)), parts=2),
    Case(2, (300, 1), 16, 40, (9, 1), padding=((4, 4), (0, 0)), stride=(2, 1), parts=3),  # one column
    Case(1, (2, 5000), 16, 4, (2, 9), padding=((0, 0), (4, 5)), stride=(1, 2), parts=2),  # strips of a part of a row
    Case(1, (3, 9000), 3, 4, (2, 9), padding=((0, 0), (8, 8)), parts=3),
    Case(3, (9, 9), 1, 1, (3, 3), groups=40, padding=SAME, parts=2),
    Case(3, (9, 9), 1, 1, (3, 3), groups=300, padding=SAME, stride=(2, 2), parts=2),
    Case(2, (12, 12), 1, 1, (5, 5), groups=24, parts=2),
    Case(2, (14, 14), 1, 1, (5, 5), groups=81, padding=((2, 2), (2, 2)), stride=(2, 2), parts=3),
    Case(2, (6, 30), 1, 1, (3, 3), groups=7, padding=SAME),
    Case(2, (6, 6), 1, 3, (3, 3), groups=10, padding=SAME, parts=2),
    Case(15, (12, 12), 24, 48, (5, 5)),  # from here: gradients of the input by adding
    Case(1, (300, 300), 3, 8, (3, 3)),  # bands
    Case(2, (40, 33), 3, 64, (7, 7), padding=((3, 3), (3, 3)), stride=(2, 2), parts=3),
    Case(0, (4, 4), 3, 2, (3, 3), parts=2),
    Case(0, (4, 4), 1, 1, (3, 3), groups=20, parts=2),
    Case(2, (0, 2), 1, 2, (1, 1), padding=((1, 2), (0, 0)), parts=2),
]


def random_case(random: Random) -> Case:
    """Sizes of all kinds; the window fits the padded image."""
    while True:
        axes = [random.choice(((1, 1), (0, 1), (0, 3), (2, 0), (3, 2), (0, 0))) for _ in range(2)]
        case = Case(
            n=random.choice((1, 2, 3, 5, 17)),
            size=(random.randint(1, 9), random.randint(1, 20)),
            depth=random.choice((1, 1, 2, 3, 7, 8, 16, 19)),
            filters=random.choice((1, 1, 3, 8, 16, 24, 33, 48)),
            kernel=(random.randint(1, 5), random.randint(1, 5)),
            stride=(random.randint(1, 3), random.randint(1, 3)),
            padding=(axes[0], axes[1]),
            dilation=(random.choice((1, 1, 2, 3)), random.choice((1, 1, 2, 3))),
            groups=random.choice((1, 1, 1, 2, 3, 21)),
            parts=random.randint(1, 4),
        )
        reach = [(kernel - 1) * step + 1 for kernel, step in zip(case.kernel, case.dilation, strict=True)]
        padded = [size + sum(pad) for size, pad in zip(case.size, case.padding, strict=True)]
        if all(size >= least for size, least in zip(padded, reach, strict=True)):
            return case


@pytest.fixture(scope="module", params=BUILDS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        if os.environ.get("CI"):
            pytest.fail("there is no C compiler")
        pytest.skip("there is no C compiler")
    built = tmp_path_factory.mktemp("native") / "convolutions"
    flags = [*FLAGS.split(), *BUILDS[request.param].split(), f"-I{HEADERS}"]
    found = subprocess.run(
        [*compiler, *flags, str(SOURCE), "-o", str(built), "-lpthread"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    if request.param in ("native", "haswell", "sanitizers", "sanitizers-haswell"):
        probe = subprocess.run([str(built)], stdin=subprocess.DEVNULL)
        if probe.returncode < 0:
            pytest.skip(f"this processor does not run {request.param}")
    yield built


def operands(case: Case, wide: bool, seed: int) -> list[np.ndarray]:
    """x, w and dy."""
    draws = np.random.default_rng(seed)
    channels, filters = case.depth * case.groups, case.filters * case.groups
    shapes = [
        (case.n, *case.size, channels),
        (*case.kernel, case.depth, filters),
        (case.n, *case.output, filters),
    ]
    return [draws.standard_normal(shape).astype(np.float64 if wide else np.float32) for shape in shapes]


def expected_of(case: Case, op: str, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> np.ndarray:
    x, w, dy = x.astype(float), w.astype(float), dy.astype(float)
    window = {"groups": case.groups, "stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    if op == "conv2d":
        return conv2d(x, w, **window)
    if op == "conv2d_input_grad":
        return input_grad(dy, w, input_size=case.size, **window)
    return filter_grad(x, dy, kernel=case.kernel, **window)


def check(program: Path, cases: list[Case], wide: bool = False) -> None:
    """Runs all cases in one process and compares their results."""
    sent, expected = [], []
    for seed, case in enumerate(cases):
        x, w, dy = operands(case, wide, seed)
        for index, op in enumerate(OPS):
            a, b = ((x, w), (dy, w), (x, dy))[index]
            result = expected_of(case, op, x, w, dy)
            head = np.array(
                [index, wide, case.parts, *case.sizes, case.workspace, a.size, b.size, result.size], np.int64
            )
            sent += [head.tobytes(), a.tobytes(), b.tobytes()]
            expected.append((case, op, result))
    ran = subprocess.run([str(program)], input=b"".join(sent), capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    results, at = np.frombuffer(ran.stdout, np.float64 if wide else np.float32), 0
    for case, op, result in expected:
        got, at = results[at : at + result.size].reshape(result.shape), at + result.size
        worst = np.abs(got - result).max(initial=0.0)
        taps = np.prod(case.kernel)
        terms = (taps * case.depth, taps * case.filters, case.n * np.prod(case.output))[OPS.index(op)]
        assert worst <= (1e-15 if wide else 3e-7) * (20 + terms), (case, op, worst)
    assert at == results.size


@pytest.mark.parametrize("wide", [False, True])
def test_windows_of_networks(program: Path, wide: bool) -> None:
    check(program, MODELS, wide)


@pytest.mark.parametrize("seed", range(4))
def test_random_windows(program: Path, seed: int) -> None:
    random = Random(seed)
    check(program, [random_case(random) for _ in range(60)])


def test_random_windows_in_f64(program: Path) -> None:
    random = Random("f64")
    check(program, [random_case(random) for _ in range(30)], wide=True)
