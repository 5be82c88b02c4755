"""Models compiled for the GPU and for NumPy, and examples for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from compiler.driver import Compilation, compile_tree, load_tree
from compiler.ir.graph import Graph
from compiler.ir.types import NUMPY_NAMES
from compiler.memory import plan_graph
from compiler.passes.pipeline import run_pipeline
from compiler.targets import find_target
from runtime.datasets import describe
from runtime.program import Arrays, Executable, Manifest, Program, aligned_zeros, load_functions
from tests.gpu.cupy_inside import machine_code
from tests.gpu.emulation.kernels import ElementwiseKernel, RawKernel
from tests.programs import ROOT

if TYPE_CHECKING:
    from runtime.device_program import DeviceProgram

BATCH = 8


@cache
def compiled(model: str, target: str, batch: int = BATCH) -> Compilation:
    """One of the five models; nobody may change it."""
    tree = load_tree(ROOT / "models" / f"{model}.nn", [("--batch", str(batch))])
    return compile_tree(tree, storage=describe("digits"), target=target)


@dataclass
class OnDevice:
    """A graph without variables as code for the GPU."""

    arena: np.ndarray
    run: Callable[[], None]
    inputs: Arrays
    outputs: Arrays

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Copies of the outputs; all bytes hold NaN before."""
        self.arena[:] = 0xFF
        for name, view in self.inputs.items():
            view[...] = inputs[name]
        self.run()
        return {name: np.array(view) for name, view in self.outputs.items()}


def on_device(graph: Graph, batch: int) -> OnDevice:
    """Plans, generates and binds a graph, with the passes of the target."""
    target = find_target("cupy")
    optimized = run_pipeline({graph.name: graph}, target.pipeline)[graph.name]
    plan = plan_graph(optimized, batch, 0, {}, target.placement)
    executable = Executable(target.generate("a test", [plan], []), f"<{graph.name}>", plan.size, batch)
    arena = aligned_zeros(max(plan.size, 1))
    return OnDevice(arena, *load_functions(executable)[f"bind_{plan.graph.name}"](arena, batch))


def sources_of(function: Callable[..., object]) -> set[str]:
    """What CuPy compiles of all kernels of a generated module, given by one of its functions."""
    kernels = [each for each in function.__globals__.values() if isinstance(each, ElementwiseKernel | RawKernel)]
    return {source for kernel in kernels for source in kernel.sources()}


def compile_all(sources: Iterable[str]) -> None:
    """Compiles different sources with NVRTC, several at a time."""
    machine_code("")  # the first run loads a library, which two at the same time cannot
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(machine_code, set(sources)))


def host_program(model: str, batch: int = BATCH) -> Program:
    found = compiled(model, "numpy", batch)
    return Program(found.executable, found.manifest)


def device_program(model: str, batch: int = BATCH, graphs: bool = True) -> DeviceProgram:
    found = compiled(model, "cupy", batch)
    return device_program_of(found.executable, found.manifest, graphs)


def device_program_of(executable: Executable, manifest: Manifest, graphs: bool = True) -> DeviceProgram:
    from runtime.device_program import DeviceProgram  # late, for the runtime.cuda that is there by then

    return DeviceProgram(executable, manifest, graphs)


def examples(model: str, count: int) -> Arrays:
    """Arbitrary inputs and targets of a model."""
    generator, manifest = np.random.default_rng(count), compiled(model, "numpy").manifest
    result: Arrays = {}
    for each in (*manifest.inputs, *manifest.targets):
        shape = (count, *(size for size in each.shape[1:] if size is not None))
        result[each.name] = generator.integers(0, manifest.classes.get(each.name, 256), shape, NUMPY_NAMES[each.dtype])
    return result
