"""The five models as code for the GPU, on the host: training, evaluation and prediction give NumPy's results."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from compiler.reports.profile import with_clock
from runtime.random import draw
from tests.gpu.emulation import cuda
from tests.gpu.emulation.launches import in_order
from tests.gpu.lifetimes import dead_parts
from tests.gpu.running import (
    BATCH,
    assert_trained_alike,
    compiled,
    device_program,
    device_program_of,
    on_device,
    train,
    trained_on_host,
)
from tests.gpu.sources import compile_all, sources_of
from tests.programs import MODELS, TRAINED_GRAPHS, read_graph

pytestmark = pytest.mark.usefixtures("emulated")


@pytest.mark.parametrize("model", MODELS)
def test_manifests_are_the_same(model: str):
    assert compiled(model, "cupy").manifest == compiled(model, "numpy").manifest


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("model", MODELS)
def test_training(model: str, graphs: bool, order: int):
    with in_order(order):
        assert_trained_alike(train(model, device_program(model, graphs)), trained_on_host(model))


@pytest.mark.parametrize("graph", TRAINED_GRAPHS)
@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_read_that_is_dead(model: str, graph: str, monkeypatch: pytest.MonkeyPatch):
    """If all bytes that the memory plan says are dead are NaN after each kernel, the results have the same bits."""
    found = compiled(model, "cupy")
    executable, kernels = with_clock(found, graph)
    plan = next(plan for plan in found.plans if plan.graph.name == graph)
    dead = dead_parts(plan, kernels)
    assert any(dead)
    program = device_program_of(executable, found.manifest)

    def poison(kernel: int) -> None:
        for first, last in dead[kernel]:
            program.arena[first:last] = 0xFF

    monkeypatch.setattr(cuda.DeviceClock, "watcher", staticmethod(poison))
    poisoned = train(model, program)
    monkeypatch.undo()
    plain = train(model, device_program(model))
    assert all(np.array_equal(poisoned[name], plain[name]) for name in plain)


def test_what_is_alive_is_not_dead(monkeypatch: pytest.MonkeyPatch):
    """The check above fails if all bytes after the variables are NaN after each kernel."""
    found = compiled("mlp", "cupy")
    program = device_program_of(with_clock(found, "train_step")[0], found.manifest)
    monkeypatch.setattr(
        cuda.DeviceClock, "watcher", staticmethod(lambda kernel: program.arena[found.plans[0].base :].fill(0xFF))
    )
    assert np.isnan(train("mlp", program)["loss in training"])


@pytest.mark.parametrize("seed", [0, 7, -1, 2**40])
def test_random_numbers_are_the_same_bits(seed: int):
    text = """
    graph draw(%seed: i64[] input, %step: i32[] input) {
      %0: f32[1003] = random(%seed, %step, shape=[1003], distribution="uniform", stream=5)
      %1: bool[1003] = le(0.5, %0)
      return numbers=%0, mask=%1
    }"""
    run = on_device(read_graph(text), 1)
    for step in (0, 1, 2**31 - 1):
        found = run({"seed": np.array(seed), "step": np.array(step)})
        numbers = draw(seed, step, 5, (1003,), "uniform")
        assert np.array_equal(found["numbers"], numbers)
        assert np.array_equal(found["mask"], numbers >= 0.5)


@pytest.mark.parametrize("model", MODELS)
def test_every_kernel_is_cuda(model: str):
    program = device_program(model)
    train(model, program)
    compile_all(sources_of(program.views("train_step", BATCH)[0]))


# Mistakes in kernels of the multilayer perceptron: a pattern in the source and its replacement.
MISTAKES = {
    "operands swapped": (r"= (\w+) - (\w+);", r"= \2 - \1;"),
    "bound left out": (r"if \(inside\) ", ""),
    "index beyond the end": (r"\[i1\]", "[i1 + 1]"),
    "wrong index": (r"\(int\)i % 512", "(int)i / 512"),
    "written to the neighbouring element": (r"v1_\[i\] =", "v1_[i ^ 1] ="),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str):
    pattern, wrong = MISTAKES[mistake]
    found = compiled("mlp", "cupy")
    source, count = re.subn(pattern, wrong, found.executable.source)
    assert count
    program = device_program_of(replace(found.executable, source=source), found.manifest)
    with pytest.raises(AssertionError):
        assert_trained_alike(train("mlp", program), trained_on_host("mlp"))
