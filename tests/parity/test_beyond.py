"""The models of tests/bench/models against their counterparts in PyTorch, which the benchmarks compare them with.

Both must be the same model: as many parameters, and the same loss and gradients for the same weights. PyTorch computes
in float64, so that it adds no error of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.driver import compile_tree, load_tree
from runtime.program import Arrays, LoadedProgram
from tests.bench.peers.beyond_data import BEYOND, FOLDER
from tests.parity.torch_or_skip import torch  # noqa: F401  (skips without PyTorch)
from tests.programs import initialized, run_program

# Rows of the batches that are tried until one agrees. Where rounding makes a relu or a pool choose differently, the
# gradients differ by a hundredth, also between PyTorch in float32 and in float64; a wrong gradient differs for all.
ROWS = (2, 3, 4, 5)
# Keras, and so nnc, adds eps to the root of v before v is corrected for its start at zero, PyTorch after that: in the
# first step this eps is the same as 1e-7 in Keras (beta2 = 0.999).
EPS_OF_FIRST_STEP = 1e-7 / (1 - 0.999) ** 0.5


@pytest.fixture(scope="module", params=BEYOND)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def program_of(name: str, batch: int, optimizer: str | None = None) -> LoadedProgram:
    settings = [("--batch", str(batch)), *([("optimizer", optimizer)] if optimizer else [])]
    return initialized(compile_tree(load_tree(FOLDER / f"{name}.nn", settings)), seed=3)


def parameters(program: LoadedProgram) -> Arrays:
    """Copies by name, in the order of the layers."""
    variables = program.variables()
    return {spec.name: variables[spec.name].copy() for spec in program.manifest.variables if spec.kind == "param"}


def first(arrays: Arrays, rows: int) -> Arrays:
    return {name: array[:rows] for name, array in arrays.items()}


def until_one_agrees(compare: Callable[[int], None]) -> None:
    """Compares batches of different sizes; the failure of the last one is raised."""
    for rows in ROWS[:-1]:
        try:
            return compare(rows)
        except AssertionError as error:
            print(f"batch of {rows}: {error}")
    return compare(ROWS[-1])


def test_parameters_and_gradients(name: str):
    """The gradient is what one step of plain SGD at rate 1 subtracts from a parameter."""
    from tests.bench.peers.beyond_torch_models import NETWORKS, copy_weights, inputs_of, loss_of

    def compare(rows: int) -> None:
        program = program_of(name, rows, optimizer="SGD(lr=1)")
        before, batch = parameters(program), first(BEYOND[name].arrays(rows), rows)
        net = NETWORKS[name]().double()
        pairs = copy_weights(net, before)
        assert sum(array.size for array in before.values()) == sum(each.numel() for each in net.parameters())
        inputs, label = inputs_of(batch)
        loss = loss_of(net(*(x.double() if x.is_floating_point() else x for x in inputs)), label)
        loss.backward()
        after = run_program(program, "train_step", batch, rows)
        losses.append((after["loss"], loss.item()))
        for pair in pairs:
            assert pair.tensor.grad is not None
            found = pair.to_torch(before[pair.name] - after[pair.name])
            np.testing.assert_allclose(found, pair.tensor.grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=pair.name)

    losses: list[tuple[float, float]] = []
    until_one_agrees(compare)
    for found, expected in losses:
        assert found == pytest.approx(expected, rel=1e-5)


def test_an_update_with_the_optimizer_of_the_model(name: str):
    from tests.bench.peers.beyond_torch import optimizer_of
    from tests.bench.peers.beyond_torch_models import NETWORKS, copy_weights, inputs_of, loss_of

    def compare(rows: int) -> None:
        program = program_of(name, rows)
        before, batch = parameters(program), first(BEYOND[name].arrays(rows), rows)
        net = NETWORKS[name]()
        pairs = copy_weights(net, before)
        optimizer = optimizer_of(name, net, eps=EPS_OF_FIRST_STEP)
        inputs, label = inputs_of(batch)
        loss_of(net(*inputs), label).backward()
        optimizer.step()
        after = run_program(program, "train_step", batch, rows)
        within = 0.05 * BEYOND[name].lr  # where a gradient is near zero, Adam makes rounding as large as this
        for pair in pairs:
            old, new, expected = pair.to_torch(before[pair.name]), pair.to_torch(after[pair.name]), pair.tensor
            moved, wanted = new - old, expected.detach().numpy() - old
            np.testing.assert_allclose(moved, wanted, rtol=1e-3, atol=within, err_msg=pair.name)
            assert np.abs(moved - wanted).mean() <= 1e-3 * np.abs(wanted).mean() + 1e-7, pair.name

    until_one_agrees(compare)
