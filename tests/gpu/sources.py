"""The kernel sources that CuPy compiles for generated modules, compiled with NVRTC."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.gpu.cupy_inside import machine_code
from tests.gpu.emulation.kernels import ElementwiseKernel, RawKernel


def sources_of(function: Callable[..., object]) -> set[str]:
    """The sources of all kernels of a generated module, given by one of its functions, after they were launched."""
    kernels = [each for each in function.__globals__.values() if isinstance(each, ElementwiseKernel | RawKernel)]
    return {source for kernel in kernels for source in kernel.sources()}


def compile_all(sources: Iterable[str]) -> None:
    """Compiles sources with NVRTC, several at a time."""
    machine_code("")  # the first run loads a library, which is not thread-safe
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(machine_code, sources))


def joined(sources: Sequence[str]) -> str:
    """Several sources as one, each in a namespace: NVRTC reads CuPy's headers only once."""
    texts = [re.sub(r'extern\s+"C"\s+', "", source) for source in sources]
    return "\n".join(f"namespace kernel_{i} {{\n{text}\n}}" for i, text in enumerate(texts))
