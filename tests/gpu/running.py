"""Models and single graphs on the device, emulated or real, depending on what `runtime.gpu.cuda` is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.driver import Compilation, compile_tree, load_tree
from compiler.ir.graph import Graph
from compiler.ir.types import NUMPY_NAMES
from compiler.passes.pipeline import run_pipeline
from compiler.planning.memory import plan_graph
from compiler.targets.target import find_target
from runtime.allowed import GPU_PROGRAMS
from runtime.datasets import describe
from runtime.feeding import runner_of
from runtime.program import Arrays, Executable, LoadedProgram, Manifest, load_functions
from tests.programs import ROOT

if TYPE_CHECKING:
    from runtime.gpu.device_program import DeviceProgram

BATCH = 8
EXAMPLES = 2 * BATCH + 3  # the last batch is smaller


@cache
def compiled(model: str, target: str) -> Compilation:
    """One of the five models; must not be modified."""
    tree = load_tree(ROOT / "models" / f"{model}.nn", [("--batch", str(BATCH))])
    return compile_tree(tree, storage=describe("digits"), target=target)


def host_program(model: str) -> LoadedProgram:
    found = compiled(model, "numpy")
    return LoadedProgram(found.executable, found.manifest)


def device_program(model: str, graphs: bool = True) -> DeviceProgram:
    found = compiled(model, "cupy")
    return device_program_of(found.executable, found.manifest, graphs)


def device_program_of(executable: Executable, manifest: Manifest, graphs: bool = True) -> DeviceProgram:
    from runtime.gpu.device_program import DeviceProgram  # late: `emulated` replaces runtime.gpu.cuda first

    return DeviceProgram(executable, manifest, graphs)


def examples(model: str, count: int) -> Arrays:
    """Arbitrary inputs and targets of a model."""
    generator, manifest = np.random.default_rng(count), compiled(model, "numpy").manifest
    result: Arrays = {}
    for each in (*manifest.inputs, *manifest.targets):
        shape = (count, *(size for size in each.shape[1:] if size is not None))
        result[each.name] = generator.integers(0, manifest.classes.get(each.name, 256), shape, NUMPY_NAMES[each.dtype])
    return result


def train(model: str, program: LoadedProgram) -> Arrays:
    """Trains on a few batches; all that can be seen afterwards by name, of variables how they have changed."""
    arrays = examples(model, EXAMPLES)
    order = np.random.default_rng(1).permutation(EXAMPLES)
    program.initialize(seed=3)
    before = {name: np.array(variable) for name, variable in program.variables().items()}
    found: Arrays = {}
    for graph, part in (("train_step", "training"), ("evaluate", "tests")):
        means = runner_of(program, graph, arrays).means(order, BATCH)
        found |= {f"{name} in {part}": mean for name, mean in means.items()}
    found |= {name: after - before[name] for name, after in program.variables().items()}
    inputs = {each.name: arrays[each.name] for each in program.manifest.inputs}
    for count, outputs in runner_of(program, "predict", inputs).batches(order, BATCH):
        found |= {f"{name} of {count}": np.array(output) for name, output in outputs.items()}
    return {name: np.asarray(value) for name, value in found.items()}


@cache
def trained_on_host(model: str) -> Arrays:
    return train(model, host_program(model))


def assert_trained_alike(found: Arrays, expected: Arrays, tolerance: float = 5e-4) -> None:
    """Within a fraction of the largest element: both are f32, and differences grow over a few steps."""
    assert set(found) == set(expected)
    for name, reference in expected.items():
        atol = tolerance * float(np.abs(reference).max(initial=0.0))
        np.testing.assert_allclose(found[name], reference, rtol=0, atol=atol, err_msg=name)


@dataclass
class OnDevice:
    """A graph without variables as code for the device."""

    arena: Any
    run: Callable[[], None]
    inputs: dict[str, Any]
    outputs: dict[str, Any]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs; before the run all bytes are NaN."""
        from runtime.gpu import cuda

        cuda.upload(self.arena, np.full(self.arena.shape, 0xFF, np.uint8))
        for name, view in self.inputs.items():
            cuda.upload(view, inputs[name].astype(view.dtype))
        self.run()
        return {name: cuda.download(view) for name, view in self.outputs.items()}


def on_device(graph: Graph, batch: int) -> OnDevice:
    """Plans, generates and binds a graph, with the passes of the target."""
    from runtime.gpu import cuda

    target = find_target("cupy")
    optimized = run_pipeline({graph.name: graph}, target.pipeline)[graph.name]
    plan = plan_graph(optimized, batch, 0, {}, target.placement)
    executable = Executable(target.generate("a test", [plan], []), f"<{graph.name}>", plan.size, batch, target.name)
    arena = cuda.zeros(max(plan.size, 1))
    return OnDevice(arena, *load_functions(executable, GPU_PROGRAMS)[plan.graph.name](arena, batch))
