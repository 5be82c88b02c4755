"""The five models as code for the GPU, on the host: training, evaluation and prediction come out as with NumPy."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from compiler.profile import with_clock
from runtime.program import Arrays, Program
from runtime.random import draw
from tests.gpu.emulation import cuda
from tests.gpu.emulation.launches import in_order
from tests.gpu.lifetimes import dead_parts
from tests.gpu.running import (
    BATCH,
    compile_all,
    compiled,
    device_program,
    device_program_of,
    examples,
    host_program,
    on_device,
    sources_of,
)
from tests.programs import MODELS, TRAINED_GRAPHS, read_graph

EXAMPLES = 2 * BATCH + 3  # the last batch is smaller

pytestmark = pytest.mark.usefixtures("emulated")


def train(model: str, program: Program) -> Arrays:
    """Trains on a few batches; all that can be seen afterwards, by name: of params and states, how they have changed."""
    arrays = examples(model, EXAMPLES)
    order = np.random.default_rng(1).permutation(EXAMPLES)
    program.initialize(seed=3)
    before = {name: np.array(variable) for name, variable in program.variables().items()}
    found = {f"{name} in training": x for name, x in program.runner("train_step", arrays).means(order, BATCH).items()}
    found |= {f"{name} in tests": x for name, x in program.runner("evaluate", arrays).means(order, BATCH).items()}
    found |= {name: after - before[name] for name, after in program.variables().items()}
    inputs = {each.name: arrays[each.name] for each in program.manifest.inputs}
    for count, outputs in program.runner("predict", inputs).batches(order, BATCH):
        found |= {f"{name} of {count}": np.array(output) for name, output in outputs.items()}
    return {name: np.asarray(value) for name, value in found.items()}


def assert_close(found: Arrays, expected: Arrays) -> None:
    """Within a small part of the largest element: f32 against f32 after a few steps, which make differences grow."""
    assert set(found) == set(expected)
    for name, reference in expected.items():
        atol = 5e-4 * float(np.abs(reference).max(initial=0.0))
        np.testing.assert_allclose(found[name], reference, rtol=0, atol=atol, err_msg=name)


@cache
def expected(model: str) -> Arrays:
    return train(model, host_program(model))


@pytest.mark.parametrize("model", MODELS)
def test_manifests_are_the_same(model: str):
    assert compiled(model, "cupy").manifest == compiled(model, "numpy").manifest


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("model", MODELS)
def test_training(model: str, graphs: bool, order: int):
    with in_order(order):
        assert_close(train(model, device_program(model, graphs=graphs)), expected(model))


@pytest.mark.parametrize("graph", TRAINED_GRAPHS)
@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_read_that_is_dead(model: str, graph: str, monkeypatch: pytest.MonkeyPatch):
    """After each kernel, all bytes that are dead by the memory plan hold NaN: the same results to the last bit."""
    found = compiled(model, "cupy")
    executable, kernels = with_clock(found, graph)
    plan = next(plan for plan in found.plans if plan.graph.name == graph)
    dead = dead_parts(plan, kernels)
    assert any(dead)
    program = device_program_of(executable, found.manifest)

    def poison(kernel: int) -> None:
        for first, last in dead[kernel]:
            program.arena[first:last] = 0xFF

    monkeypatch.setattr(cuda.Clock, "watcher", staticmethod(poison))
    poisoned = train(model, program)
    monkeypatch.undo()
    plain = train(model, device_program(model))
    assert all(np.array_equal(poisoned[name], plain[name]) for name in plain)


@pytest.mark.parametrize("seed", [0, 7, -1, 2**40])
def test_random_numbers_are_the_same_bits(seed: int):
    text = """
    graph draw(%seed: i64[] counter, %step: i32[] counter) {
      %0: f32[1003] = random(%seed, %step, shape=[1003], distribution=uniform, stream=5)
      return x=%0
    }"""
    run = on_device(read_graph(text), 1)
    for step in (0, 1, 2**31 - 1):
        found = run({"seed": np.array(seed), "step": np.array(step)})
        assert np.array_equal(found["x"], draw(seed, step, 5, (1003,), "uniform"))


@pytest.mark.parametrize("model", MODELS)
def test_every_kernel_is_cuda(model: str):
    program = device_program(model)
    train(model, program)
    compile_all(sources_of(program.views("train_step", BATCH)[0]))


# What is written wrongly in a kernel of the multilayer perceptron, as a pattern in the source and what takes its place.
MISTAKES = {
    "operands swapped": (r"= (\w+) - (\w+);", r"= \2 - \1;"),
    "bound left out": (r"if \(inside\) ", ""),
    "index beyond the end": (r"\[i1\]", "[i1 + 1]"),
    "wrong index": (r"\(int\)i % 512", "(int)i / 512"),
    "written beside its place": (r"v1_\[i\] =", "v1_[i ^ 1] ="),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str):
    pattern, wrong = MISTAKES[mistake]
    found = compiled("mlp", "cupy")
    source, count = re.subn(pattern, wrong, found.executable.source)
    assert count
    program = device_program_of(replace(found.executable, source=source), found.manifest)
    with pytest.raises(AssertionError):
        assert_close(train("mlp", program), expected("mlp"))
