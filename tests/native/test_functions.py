"""Functions of runtime/native/functions.h against mpmath, NumPy's quotients, and random.h against runtime/random.py.

`pytest -s` prints the largest errors.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.random import draw
from tests.accuracy import TYPES, largest_error, normal_cdf, points, sigmoid

mp = pytest.importorskip("mpmath").mp
if shutil.which("gcc") is None:
    assert not os.environ.get("CI"), "there is no gcc"
    pytest.skip("there is no gcc to compile functions with", allow_module_level=True)

HEADERS = Path(__file__).parents[2] / "runtime" / "native"
SOURCE = Path(__file__).with_name("functions.c")
FLAGS = (
    "-std=gnu11 -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd -shared -fPIC "
    "-Wall -Werror -Wno-unused-function"
)
BUILDS = {
    "native": "-march=native",
    "haswell": "-march=haswell",
    "x86-64": "-march=x86-64",
    "scalar": "-march=native -DNNC_SCALAR",
}
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], float]] = {  # exact values, and where they begin
    "exp": (mp.exp, -np.inf),
    "expm1": (mp.expm1, -np.inf),
    "log": (mp.log, 0),
    "log1p": (mp.log1p, -1),
    "tanh": (mp.tanh, -np.inf),
    "sigmoid": (sigmoid, -np.inf),
    "sin": (mp.sin, -np.inf),
    "cos": (mp.cos, -np.inf),
    "erf": (mp.erf, -np.inf),
    "normcdf": (normal_cdf, -np.inf),
    "sqrt": (mp.sqrt, 0),
    "floor": (mp.floor, -np.inf),
}
ULP = 2.0
INF, NAN = np.inf, np.nan
SPECIAL = {  # operands and results
    "exp": ([-INF, -1000, -0.0, 1000, INF, NAN], [0, 0, 1, INF, INF, NAN]),
    "expm1": ([-INF, -0.0, 0, 1000, INF, NAN], [-1, -0.0, 0, INF, INF, NAN]),
    "log": ([-INF, -1, -0.0, 0, 1, INF, NAN], [NAN, NAN, -INF, -INF, 0, INF, NAN]),
    "log1p": ([-INF, -2, -1, -0.0, 0, INF, NAN], [NAN, NAN, -INF, -0.0, 0, INF, NAN]),
    "tanh": ([-INF, -0.0, 0, INF, NAN], [-1, -0.0, 0, 1, NAN]),
    "sigmoid": ([-INF, -0.0, 0, INF, NAN], [0, 0.5, 0.5, 1, NAN]),
    "sin": ([-INF, -0.0, 0, INF, NAN], [NAN, -0.0, 0, NAN, NAN]),
    "cos": ([-INF, -0.0, 0, INF, NAN], [NAN, 1, 1, NAN, NAN]),
    "erf": ([-INF, -0.0, 0, INF, NAN], [-1, -0.0, 0, 1, NAN]),
    "normcdf": ([-INF, -0.0, 0, INF, NAN], [0, 0.5, 0.5, 1, NAN]),
    "sqrt": ([-INF, -1, -0.0, 0, INF, NAN], [NAN, NAN, -0.0, 0, INF, NAN]),
    "floor": ([-INF, -0.5, -0.0, 0.5, INF, NAN], [-INF, -1, -0.0, 0, INF, NAN]),
    "abs": ([-INF, -1, -0.0, 0, INF, NAN], [INF, 1, 0, 0, INF, NAN]),
    "sign": ([-INF, -1, -0.0, 0, INF, NAN], [-1, -1, 0, 0, 1, NAN]),
}
EDGES = [-INF, -1e30, -7.5, -3, -2, -1, -0.5, -1e-30, -0.0, 0.0, 1e-30, 0.5, 1, 2, 3, 7.5, 1e30, INF, NAN]


@pytest.fixture(scope="module", params=BUILDS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target = tmp_path_factory.mktemp("functions") / f"{request.param}.so"
    command = ["gcc", *FLAGS.split(), *BUILDS[request.param].split(), f"-I{HEADERS}", str(SOURCE), "-o", str(target)]
    subprocess.run(command, check=True)
    symbols = subprocess.run(["nm", "-u", str(target)], check=True, capture_output=True, text=True).stdout
    allowed = ("memcpy", "memset", "__stack_chk_fail", "w ")
    assert [line for line in symbols.splitlines() if not any(name in line for name in allowed)] == []
    return ctypes.CDLL(str(target))


def apply(library: ctypes.CDLL, name: str, dtype: str, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    out = np.empty_like(x)
    pointers = [ctypes.c_void_p(each.ctypes.data) for each in (x, x if y is None else y, out)]
    getattr(library, f"{name}_{dtype}_loop")(ctypes.c_long(x.size), *pointers)
    return out


@cache
def operands(dtype: str) -> np.ndarray:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2 ** (8 * TYPES[dtype]().itemsize) - 1, 400, "u4" if dtype == "f32" else "u8")
    ranges = [random.uniform(-width, width, 300) for width in (1, 20, 1e5)]
    hard = [np.pi / 2, np.pi, 1e22, 6381956970095103 * 2.0**797 if dtype == "f64" else 16367173 * 2.0**72]
    x = np.concatenate([points(dtype, -INF), bits.view(TYPES[dtype]), *ranges, random.uniform(0.5, 2, 300), hard])
    x = x.astype(TYPES[dtype])
    return x[np.isfinite(x)]


@cache
def exact(name: str, dtype: str) -> tuple[np.ndarray, list[Any]]:
    function, low = FUNCTIONS[name]
    x = operands(dtype)
    x = x[x > low]
    with mp.workprec(200):
        return x, [function(mp.mpf(float(each))) for each in x]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(library: ctypes.CDLL, name: str, dtype: str):
    x, expected = exact(name, dtype)
    error, place = largest_error(apply(library, name, dtype, x), expected, [abs(each) for each in expected], x)
    print(f"{name:10} {dtype} {error:6.2f} ulp at {place:g}")
    assert error <= ULP, f"{error} ulp at {place}"


@cache
def powers(dtype: str) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    random = np.random.default_rng(1)
    x = np.concatenate([np.abs(operands(dtype)[:500]), random.uniform(0, 3, 1000), random.uniform(0.99, 1.01, 500)])
    y = np.concatenate([random.uniform(-3, 3, 500), random.uniform(-600, 600, 1000), random.uniform(-7e4, 7e4, 500)])
    x, y = x.astype(TYPES[dtype]), y.astype(TYPES[dtype])
    x, y = x[x > 0], y[x > 0]
    with mp.workprec(200):
        return x, y, [mp.power(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(x, y, strict=True)]


@pytest.mark.parametrize("dtype", TYPES)
def test_powers(library: ctypes.CDLL, dtype: str):
    x, y, expected = powers(dtype)
    error, place = largest_error(apply(library, "pow", dtype, x, y), expected, expected, x)
    print(f"pow        {dtype} {error:6.2f} ulp at {place:g}")
    assert error <= ULP, f"{error} ulp at {place}"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(library: ctypes.CDLL, name: str, dtype: str):
    x, expected = (np.array(each, TYPES[dtype]) for each in SPECIAL[name])
    same(apply(library, name, dtype, x), expected, x)


@np.errstate(all="ignore")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["pow", "mod", "floor_div", "max", "min"])
def test_special_pairs(library: ctypes.CDLL, name: str, dtype: str):
    """Powers, maxima and minima as NumPy, but for signs of zeros; quotients as in c_text/scalars.py."""
    x, y = (each.ravel().astype(TYPES[dtype]) for each in np.meshgrid(EDGES, EDGES))
    reference = {"pow": np.power, "mod": mod, "floor_div": floor_div, "max": np.maximum, "min": np.minimum}
    expected = reference[name](x, y)
    result = apply(library, name, dtype, x, y)
    if name == "pow":
        np.testing.assert_allclose(result, expected, rtol=1e-6 if dtype == "f32" else 1e-15)
        result, expected = np.sign(result), np.sign(expected)
    if name in ("max", "min"):
        result, expected = result + 0, expected + 0
    same(result, expected, (x, y))


def mod(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rest = np.fmod(a, b)
    return np.where(rest == 0, np.copysign(rest, b), np.where((rest < 0) != (b < 0), rest + b, rest))


def floor_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rest = np.fmod(a, b)
    exact = (a - rest) / b - ((rest != 0) & ((rest < 0) != (b < 0))).astype(a.dtype)
    down = np.floor(exact)
    nearest = np.where(exact - down > 0.5, down + 1, down)
    return np.where(b == 0, a / b, np.where(exact == 0, np.copysign(np.zeros_like(a), a / b), nearest))


def same(found: np.ndarray, expected: np.ndarray, where: Any) -> None:
    """Equal numbers with equal signs, or NaN."""
    np.testing.assert_array_equal(found, expected, err_msg=str(where))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]), err_msg=str(where))


@np.errstate(all="ignore")
@pytest.mark.parametrize("dtype", ["i32", "i64", "u8"])
@pytest.mark.parametrize("name", ["mod", "floor_div", "max", "min"])
def test_integers(library: ctypes.CDLL, name: str, dtype: str):
    kind = {"i32": np.int32, "i64": np.int64, "u8": np.uint8}[dtype]
    info = np.iinfo(kind)
    edges = [info.min, info.max, 0, 1, 2, 3, 7, 100] + ([-1, -2, -3, -7] if info.min < 0 else [])
    x, y = (each.ravel().astype(kind) for each in np.meshgrid(edges, edges))
    reference = {"mod": np.mod, "floor_div": np.floor_divide, "max": np.maximum, "min": np.minimum}
    np.testing.assert_array_equal(apply(library, name, dtype, x, y), reference[name](x, y))


@pytest.mark.parametrize(("first", "count", "parts"), [(0, 1000, 1), (3, 1003, 3), (13, 5, 2), (10**12 + 1, 777, 4)])
def test_uniform_numbers(library: ctypes.CDLL, first: int, count: int, parts: int):
    seed, step, stream = -5, 7, 2**63 + 3
    guard, out = 8, np.full(count + 16, -1, np.float32)
    for part in range(parts):
        library.uniform(
            ctypes.c_int(part), ctypes.c_int(parts), ctypes.c_void_p(out[guard:].ctypes.data), ctypes.c_longlong(seed),
            ctypes.c_int(step), ctypes.c_ulonglong(stream), ctypes.c_longlong(first), ctypes.c_long(count),
        )  # fmt: skip
    expected = draw(seed, step, stream, (count, 1), "uniform", first)[:, 0]
    np.testing.assert_array_equal(out[guard:-guard], expected)
    assert (out[:guard] == -1).all() and (out[-guard:] == -1).all()
    library.one_uniform.restype = ctypes.c_float
    for place in range(0, count, 97):
        found = library.one_uniform(
            ctypes.c_longlong(seed), ctypes.c_int(step), ctypes.c_ulonglong(stream), ctypes.c_longlong(first + place)
        )
        assert found == expected[place]


@pytest.mark.parametrize(("first", "shape", "parts"), [(None, (300_001,), 2), (10**12, (100, 3), 3), (0, (7, 999), 2)])
@pytest.mark.parametrize("distribution", ["normal", "truncated_normal"])
def test_normal_numbers(library: ctypes.CDLL, distribution: str, first: int | None, shape: tuple[int, ...], parts: int):
    seed, step, stream = -5, 7, 2**63 + 3
    guard, out = 8, np.full(math.prod(shape) + 16, 9, np.float32)
    row, rows, count = (0, 1, math.prod(shape)) if first is None else (first + 1, shape[0], math.prod(shape[1:]))
    for part in range(parts):
        getattr(library, distribution)(
            ctypes.c_int(part), ctypes.c_int(parts), ctypes.c_void_p(out[guard:].ctypes.data), ctypes.c_longlong(seed),
            ctypes.c_int(step), ctypes.c_ulonglong(stream), ctypes.c_longlong(row), ctypes.c_long(rows),
            ctypes.c_long(count),
        )  # fmt: skip
    expected = draw(seed, step, stream, shape, distribution, first).ravel()
    np.testing.assert_array_equal(out[guard:-guard], expected)
    assert (out[:guard] == 9).all() and (out[-guard:] == 9).all()
