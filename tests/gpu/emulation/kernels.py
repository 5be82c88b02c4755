"""ElementwiseKernel and RawKernel on NumPy arrays, with the interface of CuPy, compiled by g++."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.gpu.cupy_inside import render
from tests.gpu.cupy_or_skip import cupy
from tests.gpu.emulation import compiling
from tests.gpu.emulation.compiling import Compiled, Fault
from tests.gpu.emulation.guarded import Guarded, guard, merged
from tests.gpu.emulation.launches import Bytes, KernelError, Launch, order_of, overlap, span, state, submit

BARRIERS = re.compile(r"__sync|__shfl")
VECTOR = re.compile(r"\b(float|int)[24]\b|\balignas\b")
VECTOR_BYTES = 16
MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
TYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned int": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "unsigned char": np.uint8,
    "bool": np.bool_,
}
INDEX, MEMORY = 1, 2  # emulation::Kind of threads.h
FAULTS = {
    MEMORY: "reads or writes",
    3: "divides an integer by zero",
    4: "an index outside of an array of fixed size",
    5: "threads wait at barriers that others do not reach",
    6: "threads wait at different barriers, one of them in line {line}",
    7: "writes before or after shared memory",
}

Extent = Sequence[int]  # x, y, z; the last ones may be omitted if they are 1


class ElementwiseKernel:
    """cupy.ElementwiseKernel, whose array parameters are all raw."""

    def __init__(self, in_params: str, out_params: str, operation: str, name: str, preamble: str = ""):
        self.kernel = cupy.ElementwiseKernel(in_params, out_params, operation, name, preamble=preamble)
        self.name = name
        self.axes: set[tuple[int, ...]] = set()  # of the arguments of each launch
        self.parameters = self.kernel.params[:-1]
        self._compiled = Compiled(name, render(self.kernel), fibers=False)

    def __call__(self, *arguments: Any, size: int) -> None:
        assert len(arguments) == len(self.parameters), f"{self.name}: {len(arguments)} arguments"
        for argument, parameter in zip(arguments, self.parameters, strict=True):
            check_argument(self.name, parameter.name, argument, np.dtype(parameter.dtype), parameter.raw)
        assert all(x.flags.c_contiguous for x in arguments if isinstance(x, np.ndarray)), f"{self.name}: strided arrays"
        self.axes.add(tuple(x.ndim for x in arguments if isinstance(x, np.ndarray)))
        inputs, outputs = arguments[: self.kernel.nin], arguments[self.kernel.nin :]
        reads = [span(x) for x in inputs if isinstance(x, np.ndarray)]
        submit(Launch(self.name, reads, [span(x) for x in outputs], lambda: self._run(arguments, size)))

    def sources(self) -> list[str]:
        """The sources that CuPy compiles: one for every combination of numbers of axes that was launched."""
        return [render(self.kernel, axes) for axes in sorted(self.axes)]

    def _run(self, arguments: Sequence[Any], size: int) -> None:
        cells = [
            np.array([x.ctypes.data, x.size, x.size, x.itemsize], np.int64)  # CArray<T, 1>: data, size, shape, strides
            if isinstance(x, np.ndarray)
            else np.array(x, parameter.dtype)
            for x, parameter in zip(arguments, self.parameters, strict=True)
        ]
        cells.append(np.array([size, size, 0], np.int64))  # CIndexer<1>: size, shape, index
        how = describe_launch((1,), (1,), size)
        fault = self._compiled.function([cell.ctypes.data for cell in cells], how)
        if fault is not None:
            pairs = zip(self.parameters, arguments, strict=True)
            places = {parameter.name: span(x) for parameter, x in pairs if isinstance(x, np.ndarray)}
            raise KernelError(f"{self.name}: {explain(fault, places)}")


class RawKernel:
    """cupy.RawKernel; pointers that are not const are outputs."""

    def __init__(self, code: str, name: str):
        self.code, self.name = code, name
        self._compiled = Compiled(name, code, fibers=BARRIERS.search(code) is not None)
        self.parameters = self._compiled.parameters
        self._vectors = VECTOR.search(code) is not None

    def __call__(self, grid: Extent, block: Extent, arguments: Sequence[Any]) -> None:
        assert len(arguments) == len(self.parameters), f"{self.name}: {len(arguments)} arguments"
        assert math.prod(block) <= MOST_THREADS, f"{self.name}: {math.prod(block)} threads in a block"
        assert all(1 <= n <= most for n, most in zip(grid, MOST_BLOCKS, strict=False)), f"{self.name}: a grid of {grid}"
        reads, writes, restricted = [], [], []
        for argument, (type, name) in zip(arguments, self.parameters, strict=True):
            pointer = "*" in type
            check_argument(self.name, name, argument, dtype_of(type), pointer)
            if pointer:
                (reads if type.startswith("const") else writes).append(span(argument))
                restricted += [span(argument)] if "__restrict__" in type else []
        for one in restricted:
            if sum(overlap(one, other) for other in reads + writes) > 1 and any(overlap(one, x) for x in writes):
                raise KernelError(f"{self.name}: a __restrict__ argument overlaps with one that is written")
        submit(Launch(self.name, reads, writes, lambda: self._run(grid, block, arguments)))

    def sources(self) -> list[str]:
        return [self.code]

    def _run(self, grid: Extent, block: Extent, arguments: Sequence[Any]) -> None:
        arrays = [x for x in arguments if isinstance(x, np.ndarray)]
        alignment = VECTOR_BYTES if self._vectors else max(x.itemsize for x in arrays)
        at_end = state.order % 2 == 0
        spans = merged([span(x) for x in arrays])
        copies = {each[0]: guard(each, number, alignment, at_end) for number, each in enumerate(spans)}
        try:
            self._launch(describe_launch(grid, block), arguments, copies)
        finally:
            for each in copies.values():
                each.pages.release()

    def _launch(self, how: compiling.Launch, arguments: Sequence[Any], copies: dict[int, Guarded]) -> None:
        """Runs the kernel on guarded copies, and copies back those that it may have written."""
        cells: list[np.ndarray] = []
        places: dict[str, Bytes] = {}
        written: list[Guarded] = []
        for argument, (type, name) in zip(arguments, self.parameters, strict=True):
            cells.append(np.asarray(argument))
            if isinstance(argument, np.ndarray):
                first, last = span(argument)
                at, copied = max((at, each) for at, each in copies.items() if at <= first)
                cells[-1] = np.array(copied.address + first - at)
                places[name] = copied.address + first - at, copied.address + last - at
                written += [] if type.startswith("const") else [copied]
        fault = self._compiled.function([cell.ctypes.data for cell in cells], how)
        if fault is not None:
            raise KernelError(f"{self.name}: {explain(fault, places)}")
        if not all(each.is_intact() for each in copies.values()):
            raise KernelError(f"{self.name}: writes before or after an argument")
        for each in written:
            each.original[:] = each.copy


def dtype_of(type: str) -> np.dtype[Any]:
    """The dtype of the values of a C type, or of those that a pointer points to."""
    words = re.sub(r"\bconst\b|__restrict__|\*", "", type).split()
    name = VECTOR.sub(r"\1", " ".join(words))
    assert name in TYPES, f"a parameter of type {type}"
    return np.dtype(TYPES[name])


def describe_launch(grid: Extent, block: Extent, size: int = 1) -> compiling.Launch:
    """Numbers of blocks and threads, and the orders of them and of `size` loop indices."""
    counts = size, math.prod(grid), math.prod(block)
    orders = [order_of(count, state.order) for count in counts]
    return compiling.Launch(
        *((ctypes.c_uint * 3)(*extent, *(1,) * (3 - len(extent))) for extent in (grid, block)), *orders
    )


def explain(fault: Fault, places: Mapping[str, Bytes]) -> str:
    """The fault and its place in words."""
    if fault.kind == INDEX:
        names = [name for name, (first, _) in places.items() if first == fault.address]
        return f"index {fault.index} is outside of {' or '.join(names)}"
    text = FAULTS[fault.kind].format(line=fault.line)
    if fault.kind == MEMORY:
        near = [(distance(fault.address, place), name) for name, place in places.items()]
        text += " {} bytes from {}".format(*min(near))
    return f"{text}, in block {tuple(fault.block)}, thread {tuple(fault.thread)}"


def distance(address: int, place: Bytes) -> int:
    """Bytes between an address and a place."""
    first, last = place
    return first - address if address < first else max(address - last, 0)


def check_argument(kernel: str, name: str, value: Any, dtype: np.dtype[Any], array: bool) -> None:
    """CuPy passes arguments on unchecked: wrong types would be read as garbage."""
    where = f"{kernel}: argument {name}"
    if array:
        assert isinstance(value, np.ndarray), f"{where} is not an array"
        assert value.dtype == dtype, f"{where} is {value.dtype}, not {dtype}"
    else:
        given = np.asarray(value)
        fits = isinstance(value, int) and dtype.kind in "iu" and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
        assert given.ndim == 0 and (fits or given.dtype == dtype), f"{where} is {value!r}, not a {dtype}"
