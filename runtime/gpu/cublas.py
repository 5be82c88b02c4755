"""Products of matrices with cuBLAS, called directly: CuPy refuses to call it while a CUDA graph is captured.

cuBLAS expects column-major matrices, and the arrays of a program are row-major. The bytes of a row-major matrix are its
transpose in column-major order, so out = a @ b is computed as out.T = b.T @ a.T, without a copy. `calls` finds the
calls for a product from shapes and strides.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from ctypes import byref, c_double, c_float, c_int, c_longlong, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

WORKSPACE = 32 << 20  # bytes, as NVIDIA recommends for its largest GPUs
NOT_TRANSPOSED, TRANSPOSED = 0, 1  # cublasOperation_t
FULL_PRECISION, TF32 = 0, 3  # cublasMath_t: CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH
PRODUCTS = {  # by dtype: the functions for one product and for a stack, and the C type of a number
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


class StridedArray(Protocol):
    """An array of NumPy or CuPy."""

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
    def of(cls, array: StridedArray) -> Layout:
        return cls(tuple(array.shape), tuple(stride // array.itemsize for stride in array.strides))

    @property
    def transposed(self) -> Layout:
        """The same with the last two axes exchanged."""
        return Layout(*((*each[:-2], each[-1], each[-2]) for each in self))


class Matrix(NamedTuple):
    """A matrix, or a stack of them, as cuBLAS expects it; all but the flag are counted in elements."""

    flag: int  # whether to transpose it
    leading: int  # the leading dimension: from a column to the next
    offset: int  # from the start of the array
    step: int  # from a matrix of the stack to the next


@dataclass(frozen=True)
class Gemm:
    """The arguments of one call, in cuBLAS's terms: out[m,n] = left[m,k] @ right[k,n], for each matrix of the stacks.

    `left` is b of the product a @ b, and `right` is a.
    """

    m: int
    n: int
    k: int
    left: Matrix
    right: Matrix
    out: Matrix
    count: int


class StackAxis(NamedTuple):
    """An axis along which products are stacked: its length, and the strides of a, b and out."""

    length: int
    strides: tuple[int, ...]


@cache
def calls(a: Layout, b: Layout, out: Layout) -> tuple[Gemm, ...]:
    """The calls for out = a @ b with a[…,m,k], b[…,k,n] and out[…,m,n], with the leading axes broadcast.

    m, n and k must not be 0. Raises ValueError for an operand with neither contiguous rows nor contiguous columns, or a
    result without contiguous rows.
    """
    if row_length(out) is None:
        raise ValueError(f"cuBLAS cannot write rows of shape {out.shape} with strides {out.strides}")
    axes = stacking_axes(a, b, out)
    if axes and (taller := stacked_rows(a, b, out, axes[-1])):
        a, b, out = taller
        axes.pop()
    *outer, inner = axes or [StackAxis(1, (0, 0, 0))]
    return tuple(one_call(a, b, out, inner, offsets) for offsets in offsets_along(outer))


def stacking_axes(a: Layout, b: Layout, out: Layout) -> list[StackAxis]:
    """The leading axes, outermost first; neighbours that are like one axis in all three arrays are joined."""
    axes: list[StackAxis] = []
    rank = len(out.shape)
    for position, length in enumerate(out.shape[:-2]):
        strides = tuple(leading_stride(each, position - rank) for each in (a, b, out))
        if length == 1:
            continue
        if axes and axes[-1].strides == tuple(length * stride for stride in strides):
            length *= axes.pop().length
        axes.append(StackAxis(length, strides))
    return axes


def leading_stride(layout: Layout, axis: int) -> int:
    """The stride along an axis, counted from the last; 0 if the array is broadcast along it."""
    return layout.strides[axis] if -axis <= len(layout.shape) and layout.shape[axis] > 1 else 0


def stacked_rows(a: Layout, b: Layout, out: Layout, axis: StackAxis) -> tuple[Layout, Layout, Layout] | None:
    """The innermost stack as one product, if its matrices have the same b, and those of a and out form taller ones."""
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
    """The layout with another matrix after the leading axes."""
    return Layout(layout.shape[:-2] + matrix.shape, layout.strides[:-2] + matrix.strides)


def offsets_along(axes: Sequence[StackAxis]) -> list[tuple[int, ...]]:
    """The offsets of a, b and out, for each index of the axes."""
    found = [(0, 0, 0)]
    for axis in axes:
        found = [
            tuple(start + index * stride for start, stride in zip(starts, axis.strides, strict=True))
            for starts in found
            for index in range(axis.length)
        ]
    return found


def one_call(a: Layout, b: Layout, out: Layout, axis: StackAxis, offsets: tuple[int, ...]) -> Gemm:
    (m, k), n = a.shape[-2:], b.shape[-1]
    first, second, result = map(as_cublas_expects, (a, b, out), offsets, axis.strides)
    return Gemm(n, m, k, second, first, result, axis.length)


def as_cublas_expects(layout: Layout, offset: int, step: int) -> Matrix:
    if leading := row_length(layout):
        return Matrix(NOT_TRANSPOSED, leading, offset, step)
    if leading := row_length(layout.transposed):
        return Matrix(TRANSPOSED, leading, offset, step)
    raise ValueError(f"cuBLAS cannot read a matrix of shape {layout.shape} with strides {layout.strides}")


def row_length(layout: Layout) -> int | None:
    """Elements from a row to the next, if rows are contiguous and do not overlap; else None."""
    (rows, columns), (row, column) = layout.shape[-2:], layout.strides[-2:]
    if columns > 1 and column != 1:
        return None
    if rows == 1:
        return columns
    return row if row >= columns else None


# Calls ----------------------------------------------------------------------------------------------------------------


def load(cuda: int) -> ctypes.CDLL | None:
    """The library for a major version of CUDA, with its prototypes; None if there is none."""
    names = [f"libcublas.so.{cuda}", f"cublas64_{cuda}.dll"]
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # pyright: ignore[reportMissingImports]

        names[:0] = filter(None, [load_nvidia_dynamic_lib("cublas").abs_path])
    except (ImportError, RuntimeError):  # no pathfinder, or it does not find the library: the system may find it
        pass
    for name in names:
        with suppress(OSError):
            return with_prototypes(ctypes.CDLL(name))
    return None


def with_prototypes(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declares the types of arguments: ctypes would otherwise pass all but pointers as 32-bit numbers."""
    library.cublasCreate_v2.argtypes = [ctypes.POINTER(c_void_p)]
    library.cublasSetStream_v2.argtypes = [c_void_p, c_void_p]
    library.cublasSetWorkspace_v2.argtypes = [c_void_p, c_void_p, c_size_t]
    library.cublasSetMathMode.argtypes = [c_void_p, c_int]
    for one, stack, number in PRODUCTS.values():
        factor, matrix = ctypes.POINTER(number), [c_void_p, c_int]
        sizes = [c_void_p, *[c_int] * 5, factor]
        getattr(library, one).argtypes = [*sizes, *matrix, *matrix, factor, *matrix]
        matrix = [*matrix, c_longlong]
        getattr(library, stack).argtypes = [*sizes, *matrix, *matrix, factor, *matrix, c_int]
    return library


class CublasError(RuntimeError):
    """A call that failed in cuBLAS."""


class Handle:
    """cuBLAS on one stream.

    The caller passes a workspace on the GPU and keeps it alive: without one cuBLAS allocates, which is not allowed
    while a graph is captured; in a shared one, products of two streams would overwrite each other's data; and only with
    one for each stream are results the same in every run.
    """

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: int, tf32: bool):
        self.blas = library
        self.handle = c_void_p()
        self._call("cublasCreate_v2", byref(self.handle))
        self._call("cublasSetStream_v2", self.handle, stream)  # before the workspace, which it resets
        self._call("cublasSetWorkspace_v2", self.handle, workspace, WORKSPACE)
        self._call("cublasSetMathMode", self.handle, TF32 if tf32 else FULL_PRECISION)

    def multiply(self, call: Gemm, dtype: str, a: int, b: int, out: int) -> None:
        """Queues one call, for arrays at these addresses."""
        one, stack, number = PRODUCTS[dtype]
        size, is_stack = ctypes.sizeof(number), call.count > 1
        left, right, result = (
            (start + size * matrix.offset, matrix.leading, *([matrix.step] if is_stack else []))
            for start, matrix in ((b, call.left), (a, call.right), (out, call.out))
        )
        flags, sizes = (call.left.flag, call.right.flag), (call.m, call.n, call.k)
        factors = byref(number(1)), byref(number(0))
        arguments = [self.handle, *flags, *sizes, factors[0], *left, *right, factors[1], *result]
        self._call(stack if is_stack else one, *arguments, *([call.count] if is_stack else []))

    def _call(self, name: str, *arguments: object) -> None:
        if status := getattr(self.blas, name)(*arguments):
            raise CublasError(f"{name}: {STATUSES.get(status, f'status {status}')}")
