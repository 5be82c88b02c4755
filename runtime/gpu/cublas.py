"""Products of matrices by cuBLAS, called directly: CuPy refuses to call it while a CUDA graph is captured.

cuBLAS takes matrices to lie by columns, and the arrays of a program lie by rows. Bytes that are a matrix by rows are
its transpose by columns, so that out = a @ b is asked for as out.T = b.T @ a.T, which copies nothing. Which calls a
product needs is found out by `calls` alone, from shapes and strides.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from ctypes import byref, c_double, c_float, c_int, c_longlong, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for its largest GPUs
NOT_TRANSPOSED, TRANSPOSED = 0, 1  # cublasOperation_t
FULL_PRECISION, TF32 = 0, 3  # cublasMath_t: CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH
PRODUCTS = {  # by dtype: for one product, for a stack of them, and C's type of a number
    "float32": ("cublasSgemm_v2", "cublasSgemmStridedBatched", c_float),
    "float64": ("cublasDgemm_v2", "cublasDgemmStridedBatched", c_double),
}
STATUSES = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}


# From arrays to calls -------------------------------------------------------------------------------------------------


class Array(Protocol):
    """What is read of an array of NumPy or CuPy."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def itemsize(self) -> int: ...


class Layout(NamedTuple):
    """Shape and strides of an array, the strides counted in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, array: Array) -> Layout:
        return cls(tuple(array.shape), tuple(stride // array.itemsize for stride in array.strides))

    @property
    def transposed(self) -> Layout:
        """The same with the last two axes exchanged."""
        return Layout(*((*each[:-2], each[-1], each[-2]) for each in self))


class Matrix(NamedTuple):
    """A matrix, or a stack of them, as cuBLAS takes it; all but the flag are counted in elements."""

    flag: int  # whether it is to be transposed
    leading: int  # the leading dimension: from a column to the next
    offset: int  # from the start of the array
    step: int  # from a matrix of the stack to the next


@dataclass(frozen=True)
class Call:
    """The arguments of a call, in cuBLAS's terms: out[m,n] = left[m,k] @ right[k,n], for each matrix of the stacks.

    `left` is b of the product that is asked for, and `right` is a.
    """

    m: int
    n: int
    k: int
    left: Matrix
    right: Matrix
    out: Matrix
    count: int


class Axis(NamedTuple):
    """One axis along which products are stacked: its length, and the strides of a, b and out."""

    length: int
    strides: tuple[int, ...]


@cache
def calls(a: Layout, b: Layout, out: Layout) -> tuple[Call, ...]:
    """What computes out = a @ b for a[…,m,k], b[…,k,n] and out[…,m,n], with the leading axes broadcast.

    No side may be of length 0. Raises ValueError for an operand with neither rows nor columns in one piece, or a result
    without rows in one piece.
    """
    if row_length(out) is None:
        raise ValueError(f"cuBLAS cannot write rows of shape {out.shape} with strides {out.strides}")
    axes = stacking_axes(a, b, out)
    if axes and (taller := stacked_rows(a, b, out, axes[-1])):
        a, b, out = taller
        axes.pop()
    *outer, inner = axes or [Axis(1, (0, 0, 0))]
    return tuple(one_call(a, b, out, inner, offsets) for offsets in offsets_along(outer))


def stacking_axes(a: Layout, b: Layout, out: Layout) -> list[Axis]:
    """The leading axes, outermost first; those that all three arrays step through evenly are joined."""
    axes: list[Axis] = []
    rank = len(out.shape)
    for position, length in enumerate(out.shape[:-2]):
        strides = tuple(leading_stride(each, position - rank) for each in (a, b, out))
        if length == 1:
            continue
        if axes and axes[-1].strides == tuple(length * stride for stride in strides):
            length *= axes.pop().length
        axes.append(Axis(length, strides))
    return axes


def leading_stride(layout: Layout, axis: int) -> int:
    """The stride along an axis, counted from the last; 0 where the array is broadcast."""
    return layout.strides[axis] if -axis <= len(layout.shape) and layout.shape[axis] > 1 else 0


def stacked_rows(a: Layout, b: Layout, out: Layout, axis: Axis) -> tuple[Layout, Layout, Layout] | None:
    """The innermost stack as one product: if b is in common, and the matrices of a and of out make taller ones."""
    (rows, depth), columns = a.shape[-2:], out.shape[-1]
    a_step, b_step, out_step = axis.strides
    a_row, out_row = (a_step, out_step) if rows == 1 else (a.strides[-2], out.strides[-2])
    if b_step or (a_step, out_step) != (rows * a_row, rows * out_row):
        return None
    tall_a = Layout((axis.length * rows, depth), (a_row, a.strides[-1]))
    tall_out = Layout((axis.length * rows, columns), (out_row, out.strides[-1]))
    if not row_length(tall_out) or not (row_length(tall_a) or row_length(tall_a.transposed)):
        return None
    return with_matrix(a, tall_a), b, with_matrix(out, tall_out)


def with_matrix(layout: Layout, matrix: Layout) -> Layout:
    """Another matrix at the end of the leading axes."""
    return Layout(layout.shape[:-2] + matrix.shape, layout.strides[:-2] + matrix.strides)


def offsets_along(axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    """Where a, b and out start, for each index of the axes."""
    found = [(0, 0, 0)]
    for axis in axes:
        found = [
            tuple(start + index * stride for start, stride in zip(starts, axis.strides, strict=True))
            for starts in found
            for index in range(axis.length)
        ]
    return found


def one_call(a: Layout, b: Layout, out: Layout, axis: Axis, offsets: tuple[int, ...]) -> Call:
    (m, k), n = a.shape[-2:], b.shape[-1]
    first, second, result = map(as_cublas_takes, (a, b, out), offsets, axis.strides)
    return Call(n, m, k, second, first, result, axis.length)


def as_cublas_takes(layout: Layout, offset: int, step: int) -> Matrix:
    if leading := row_length(layout):
        return Matrix(NOT_TRANSPOSED, leading, offset, step)
    if leading := row_length(layout.transposed):
        return Matrix(TRANSPOSED, leading, offset, step)
    raise ValueError(f"cuBLAS cannot read a matrix of shape {layout.shape} with strides {layout.strides}")


def row_length(layout: Layout) -> int | None:
    """Elements from a row to the next, if those of a row lie side by side and rows do not overlap; else None."""
    (rows, columns), (row, column) = layout.shape[-2:], layout.strides[-2:]
    if columns > 1 and column != 1:
        return None
    if rows == 1:
        return columns
    return row if row >= columns else None


# Calls ----------------------------------------------------------------------------------------------------------------


def load(cuda: int) -> ctypes.CDLL | None:
    """The library for a major version of CUDA, with its prototypes; None where there is none."""
    names = [f"libcublas.so.{cuda}", f"cublas64_{cuda}.dll"]
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # pyright: ignore[reportMissingImports]

        names[:0] = filter(None, [load_nvidia_dynamic_lib("cublas").abs_path])
    except (ImportError, RuntimeError):  # no pathfinder, or it does not find the library: perhaps the system does
        pass
    for name in names:
        with suppress(OSError):
            return with_prototypes(ctypes.CDLL(name))
    return None


def with_prototypes(library: ctypes.CDLL) -> ctypes.CDLL:
    """ctypes would otherwise pass what is not a pointer as a 32-bit number."""
    library.cublasCreate_v2.argtypes = [ctypes.POINTER(c_void_p)]
    library.cublasSetStream_v2.argtypes = [c_void_p, c_void_p]
    library.cublasSetWorkspace_v2.argtypes = [c_void_p, c_void_p, c_size_t]
    library.cublasSetMathMode.argtypes = [c_void_p, c_int]
    for one, stack, number in PRODUCTS.values():
        factor, matrix = ctypes.POINTER(number), [c_void_p, c_int]
        sides = [c_void_p, *[c_int] * 5, factor]
        getattr(library, one).argtypes = [*sides, *matrix, *matrix, factor, *matrix]
        matrix = [*matrix, c_longlong]
        getattr(library, stack).argtypes = [*sides, *matrix, *matrix, factor, *matrix, c_int]
    return library


class CublasError(RuntimeError):
    """A call that cuBLAS refused."""


class Handle:
    """cuBLAS on one stream.

    Whoever makes it gives it a workspace on the GPU and keeps that alive: without one cuBLAS allocates, which the
    capture of a graph forbids; in a common one, products of two streams would overwrite each other's; and only with
    one for each stream are results the same in every run.
    """

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, tf32: bool):
        self.blas = library
        self.handle = c_void_p()
        self._call("cublasCreate_v2", byref(self.handle))
        self._call("cublasSetStream_v2", self.handle, stream)  # before the workspace, which it takes away
        self._call("cublasSetWorkspace_v2", self.handle, workspace, WORKSPACE)
        self._call("cublasSetMathMode", self.handle, TF32 if tf32 else FULL_PRECISION)

    def multiply(self, call: Call, dtype: str, a: int, b: int, out: int) -> None:
        """Queues one call for arrays at these addresses."""
        one, stack, number = PRODUCTS[dtype]
        size, is_stack = ctypes.sizeof(number), call.count > 1
        left, right, result = (
            (start + size * matrix.offset, matrix.leading, *([matrix.step] if is_stack else []))
            for start, matrix in ((b, call.left), (a, call.right), (out, call.out))
        )
        flags, sides = (call.left.flag, call.right.flag), (call.m, call.n, call.k)
        factors = byref(number(1)), byref(number(0))
        arguments = [self.handle, *flags, *sides, factors[0], *left, *right, factors[1], *result]
        self._call(stack if is_stack else one, *arguments, *([call.count] if is_stack else []))

    def _call(self, name: str, *arguments: object) -> None:
        if status := getattr(self.blas, name)(*arguments):
            raise CublasError(f"{name}: {STATUSES.get(status, f'status {status}')}")
