"""What CuPy does between a kernel object and the compiler, without a GPU: the source it renders, and NVRTC.

All private names of CuPy that the tests use are here. They belong to the pinned version; other versions may differ.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tests.gpu.cupy_or_skip import cupy

PINNED = "14.2.0"
ARRAY, INDEXER, SCALAR = 1, 2, 3  # cupy._core._kernel: kinds of arguments


def private(place: Any, name: str) -> Any:
    """A private name of a module of CuPy, given by its name, or of an object."""
    place = import_module(place) if isinstance(place, str) else place
    assert hasattr(place, name), f"CuPy {cupy.__version__} has no {name} in {place}; {PINNED} has"
    return getattr(place, name)


def render(kernel: Any, axes: tuple[int, ...] = ()) -> str:
    """The CUDA source of an ElementwiseKernel whose parameters are raw arrays and scalars of fixed types.

    `axes`: the number of axes of each array argument, by default one. Arrays are contiguous.
    """
    parameters = kernel.params[:-1]  # the last is the index
    assert all(p.dtype is not None for p in parameters), f"{kernel.name}: a parameter without a fixed type"
    arrays = iter(axes or (1,) * len(parameters))
    make_info = private("cupy._core._kernel", "_ArgInfo")
    arguments = [
        make_info(ARRAY, cupy.ndarray, np.dtype(p.dtype), next(arrays), True, True)
        if p.raw
        else make_info(SCALAR, type(None), np.dtype(p.dtype), 0, True, True)
        for p in parameters
    ]
    types = tuple(np.dtype(p.dtype) for p in parameters)
    _, _, names = private(kernel, "_decide_params_type")(types[: kernel.nin], types[kernel.nin :])
    return private("cupy._core._kernel", "_get_elementwise_kernel_code")(
        (*arguments, make_info(INDEXER, type(None), None, 1, True, True)),
        names,
        kernel.params,
        kernel.operation,
        kernel.name,
        kernel.preamble,
        **kernel.kwargs,
    )


def header_folder() -> Path:
    return Path(private("cupy._core.core", "_get_header_dir_path")())


@cache
def options() -> tuple[str, ...]:
    """The options with which CuPy compiles a kernel for a device of compute capability 9.0."""
    found = private("cupy._core.core", "assemble_cupy_compiler_options")(())
    return (*found, "-ftz=true", "--device-as-default-execution-space", "-arch=sm_90")


@cache
def headers() -> str:
    """What CuPy puts before the source of an ElementwiseKernel."""
    return "".join(f"#include <{name}>\n" for name in private("cupy._core.core", "_cupy_header_list"))


def machine_code(source: str) -> bytes:
    """Compiles a source with NVRTC for sm_90; raises cupy.cuda.compiler.CompileException with NVRTC's log."""
    text = headers() + source if "CUPY_FOR" in source else source
    program = private("cupy.cuda.compiler", "_NVRTCProgram")(text, "kernel.cu", method="cubin")
    code, _ = program.compile(options())
    assert code.startswith(b"\x7fELF")
    return code
