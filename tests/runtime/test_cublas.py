"""Products with cuBLAS: the computed calls, executed in Python on flat memory, give the results of NumPy."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from runtime.gpu import cublas
from runtime.gpu.cublas import TRANSPOSED, CublasError, Gemm, Handle, Layout, Matrix, calls

SIDES = (1, 2, 3)
STACKS = [((), ()), ((2,), ()), ((), (2,)), ((1,), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((1, 1), (2, 3))]


def column_major(memory: np.ndarray, matrix: Matrix, index: int, rows: int, columns: int) -> np.ndarray:
    """A matrix of a stack as cuBLAS reads it; a view."""
    if matrix.flag == TRANSPOSED:
        return column_major(memory, matrix._replace(flag=0), index, columns, rows).T
    assert matrix.leading >= max(1, rows)
    start = matrix.offset + index * matrix.step
    assert start + matrix.leading * (columns - 1) + rows <= memory.size
    size = memory.itemsize
    return np.lib.stride_tricks.as_strided(memory[start:], (rows, columns), (size, matrix.leading * size))


def perform(call: Gemm, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    for index in range(call.count):
        left = column_major(b, call.left, index, call.m, call.k)
        right = column_major(a, call.right, index, call.k, call.n)
        column_major(out, call.out, index, call.m, call.n)[...] = left @ right


def operand(shape: tuple[int, ...], transposed: bool, padding: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An array, and the flat memory that it is a view of; with `padding`, its rows are parts of longer ones."""
    stack, (rows, columns) = shape[:-2], shape[-2:]
    lying = (*stack, columns, rows + padding) if transposed else (*stack, rows, columns + padding)
    memory = np.random.default_rng(seed).normal(size=int(np.prod(lying)))
    array = memory.reshape(lying)[..., : lying[-1] - padding]
    return (array.swapaxes(-1, -2) if transposed else array), memory


@pytest.mark.parametrize("transposed", [*product((False, True), repeat=2)])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("stacks", STACKS)
def test_calls_compute_the_product(transposed: tuple[bool, bool], padding: int, stacks: tuple) -> None:
    for m, n, k in product(SIDES, repeat=3):
        a, a_memory = operand((*stacks[0], m, k), transposed[0], padding, 1)
        b, b_memory = operand((*stacks[1], k, n), transposed[1], padding, 2)
        expected = a @ b
        out, out_memory = operand(expected.shape, False, padding, 3)
        for call in calls(Layout.of(a), Layout.of(b), Layout.of(out)):
            perform(call, a_memory, b_memory, out_memory)
        np.testing.assert_allclose(out, expected, rtol=1e-13)


def made_calls(a: np.ndarray, b: np.ndarray) -> tuple[Gemm, ...]:
    return calls(Layout.of(a), Layout.of(b), Layout.of(a @ b))


@pytest.mark.parametrize(
    ("a", "b", "number", "count", "rows"),
    [
        ((4, 3), (3, 5), 1, 1, 4),
        ((7, 4, 3), (3, 5), 1, 1, 28),  # the weights of a layer, for every step of a sequence
        ((7, 1, 3), (3, 5), 1, 1, 7),
        ((2, 7, 4, 3), (3, 5), 1, 1, 56),
        ((7, 4, 3), (7, 3, 5), 1, 7, 4),
        ((2, 7, 4, 3), (2, 7, 3, 5), 1, 14, 4),
        ((4, 3), (7, 3, 5), 1, 7, 4),
        ((2, 7, 4, 3), (2, 1, 3, 5), 1, 2, 28),
        ((2, 1, 4, 3), (1, 7, 3, 5), 2, 7, 4),
    ],
)
def test_few_calls(a: tuple, b: tuple, number: int, count: int, rows: int) -> None:
    made = made_calls(np.zeros(a), np.zeros(b))
    assert (len(made), made[0].count, made[0].n) == (number, count, rows)


def test_what_cublas_cannot_read_or_write() -> None:
    a = np.zeros((8, 6))
    with pytest.raises(ValueError, match=r"cannot read a matrix of shape \(4, 3\) with strides \(12, 2\)"):
        made_calls(a[::2, ::2], np.zeros((3, 2)))
    with pytest.raises(ValueError, match="cannot read"):
        made_calls(np.broadcast_to(np.zeros(3), (4, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="cannot write"):
        calls(Layout.of(np.zeros((4, 3))), Layout.of(np.zeros((3, 2))), Layout.of(np.zeros((2, 4)).T))


class Library:
    """A library that records the arguments of calls."""

    def __init__(self, **statuses: int):
        self.statuses, self.calls = statuses, []

    def __getattr__(self, name: str):
        def function(*arguments: object) -> int:
            self.calls.append((name, arguments))
            return self.statuses.get(name, 0)

        return function


def test_a_handle_has_a_stream_and_a_workspace() -> None:
    library = Library()
    Handle(library, 11, 4096, tf32=True)  # type: ignore[arg-type]
    names = [name for name, _ in library.calls]
    assert names == ["cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSetMathMode"]
    assert [arguments[1:] for _, arguments in library.calls[1:]] == [(11,), (4096, 32 << 20), (cublas.TF32,)]


STAND_IN = r"""
#include <stddef.h>
typedef void* Handle;
extern "C" int cublasCreate_v2(Handle* handle) { *handle = (Handle)~0ull; return 0; }
extern "C" int cublasSetStream_v2(Handle, void* stream) { return stream != (void*)~7ull; }
extern "C" int cublasSetWorkspace_v2(Handle, void* space, size_t) { return space != (void*)~8ull; }
extern "C" int cublasSetMathMode(Handle, int) { return 0; }

template <class T> int multiply(
    Handle handle, int ta, int tb, int m, int n, int k, const T* alpha, const T* a, int lda, long long a_step,
    const T* b, int ldb, long long b_step, const T* beta, T* c, int ldc, long long c_step, int count) {
  if (handle != (Handle)~0ull || *alpha != 1 || *beta != 0) return 7;
  for (; count--; a += a_step, b += b_step, c += c_step)
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        T sum = 0;
        for (int l = 0; l < k; ++l)
          sum += (ta ? a[l + i * lda] : a[i + l * lda]) * (tb ? b[j + l * ldb] : b[l + j * ldb]);
        c[i + j * ldc] = sum;
      }
  return 0;
}

#define PRODUCTS(T, LETTER) \
extern "C" int cublas##LETTER##gemm_v2(Handle handle, int ta, int tb, int m, int n, int k, \
    const T* alpha, const T* a, int lda, const T* b, int ldb, const T* beta, T* c, int ldc) { \
  return multiply<T>(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1); \
} \
extern "C" int cublas##LETTER##gemmStridedBatched(Handle handle, int ta, int tb, int m, int n, int k, \
    const T* alpha, const T* a, int lda, long long a_step, const T* b, int ldb, long long b_step, \
    const T* beta, T* c, int ldc, long long c_step, int count) { \
  return multiply<T>(handle, ta, tb, m, n, k, alpha, a, lda, a_step, b, ldb, b_step, beta, c, ldc, c_step, count); \
}
PRODUCTS(float, S)
PRODUCTS(double, D)
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_calls_reach_a_library_of_c(dtype: str, tmp_path: Path) -> None:
    """Addresses, 64-bit numbers and pointers to factors arrive, in a stand-in that computes on the host."""
    (tmp_path / "stand_in.cpp").write_text(STAND_IN)
    command = ["g++", "-shared", "-fPIC", "-o", "stand_in.so", "stand_in.cpp"]
    subprocess.run(command, cwd=tmp_path, check=True)
    library = cublas.with_prototypes(ctypes.CDLL(str(tmp_path / "stand_in.so")))
    handle = Handle(library, ~7 & (2**64 - 1), ~8 & (2**64 - 1), tf32=False)
    for shapes in (((4, 3), (3, 5)), ((2, 1, 4, 3), (7, 3, 5)), ((7, 4, 3), (3, 5))):
        a, b = (np.random.default_rng(0).normal(size=shape).astype(dtype) for shape in shapes)
        out = np.zeros_like(a @ b)
        for call in made_calls(a, b):
            handle.multiply(call, dtype, a.ctypes.data, b.ctypes.data, out.ctypes.data)
        np.testing.assert_allclose(out, a @ b, rtol=1e-5)


def test_every_status_is_checked() -> None:
    with pytest.raises(CublasError, match="cublasCreate_v2: CUBLAS_STATUS_NOT_INITIALIZED"):
        Handle(Library(cublasCreate_v2=1), 0, 0, tf32=False)  # type: ignore[arg-type]
    handle = Handle(Library(cublasSgemm_v2=13), 0, 0, tf32=False)  # type: ignore[arg-type]
    (call,) = made_calls(np.zeros((4, 3)), np.zeros((3, 5)))
    with pytest.raises(CublasError, match="cublasSgemm_v2: CUBLAS_STATUS_EXECUTION_FAILED"):
        handle.multiply(call, "float32", 0, 0, 0)


def test_no_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    assert cublas.load(1) is None
