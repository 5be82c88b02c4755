"""The five recipes against PyTorch: the same weights and batches must give the same outputs, gradients and losses.

nnc computes in float32. In training PyTorch computes in float64, so that it adds no error of its own. What is left is
tiny, unless rounding makes a relu, or a pool of two nearly equal pixels, choose differently: one such choice in the CNN
changes gradients by a thousandth, and after ten steps nothing is the same. So batches are small, which makes such
choices rare, and the twins of networks with pools start every step from nnc's weights.
"""

from __future__ import annotations

import numpy as np
import pytest

from compiler.driver import Compilation, compile_tree, load_tree, override
from runtime.datasets import digits
from runtime.program import Arrays, LoadedProgram
from runtime.random import draw
from tests.parity.pytorch_models import STATES, TWINS, KerasSGD, leaves
from tests.parity.torch_or_skip import torch
from tests.programs import ROOT, initialized

BATCH, STEPS = 32, 20
FEW = 8  # examples for comparing gradients
SEED = 3
KINDS = ("param", "state")

Batches = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def data() -> Batches:
    """Twenty batches of drawn digits: images f32[32, 28, 28] in [0, 1] and labels i64[32]."""
    sheet = digits.draw_sheet(digits.Sheet(key=0x7061_72, writers=8, images=BATCH * STEPS))
    images = np.split(sheet.arrays["image"].astype(np.float32) / 255, STEPS)
    labels = np.split(sheet.arrays["label"].astype(np.int64), STEPS)
    return list(zip(images, labels, strict=True))


@pytest.fixture(scope="module", params=TWINS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def compiled(name: str, optimizer: str | None = None) -> tuple[Compilation, LoadedProgram]:
    """A recipe, its optimizer replaced if one is given, and its program with the initial weights of a seed."""
    settings = [("optimizer", optimizer)] if optimizer else []
    compilation = compile_tree(override(load_tree(ROOT / "models" / f"{name}.nn"), settings))
    return compilation, initialized(compilation, SEED)


def weights(program: LoadedProgram) -> Arrays:
    """Copies of params and states by name."""
    kept = {spec.name for spec in program.manifest.variables if spec.kind in KINDS}
    return {name: view.copy() for name, view in program.variables().items() if name in kept}


def run(program: LoadedProgram, graph: str, image: np.ndarray, label: np.ndarray) -> Arrays:
    """Feeds a batch, reshaping the images to the input that the model declares, and runs the graph once."""
    inputs = program.inputs(graph, len(image))
    for name, array in {"image": image, "label": label}.items():
        if name in inputs:
            inputs[name][...] = array.reshape(inputs[name].shape)
    return program.run(graph, len(image))


def tensors(
    program: LoadedProgram, image: np.ndarray, label: np.ndarray, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same batch for PyTorch."""
    shape = program.inputs("predict", len(image))["image"].shape
    return torch.tensor(image.reshape(shape), dtype=dtype), torch.tensor(label)


def kept_units(compilation: Compilation, step: int, examples: int) -> torch.Tensor:
    """The units that dropout keeps at a step, drawn like the random op of the training step; empty without dropout."""
    draws = [node for node in compilation.module["train_step"].walk() if node.op.name == "random"]
    if not draws:
        return torch.empty(0)
    (node,) = draws
    shape = (examples, *node.attributes["shape"][1:])
    uniform = draw(SEED, step, node.attributes["stream"], shape, node.attributes["distribution"])
    return torch.tensor(uniform >= 0.5)


def test_outputs_in_evaluation_mode(name: str, data: Batches):
    """With running statistics of batch normalization that differ from the initial ones."""
    _, program = compiled(name)
    generator = np.random.default_rng(0)
    for key, view in program.variables().items():
        if key.endswith(STATES):
            view[...] = generator.uniform(0.5, 2, view.shape)
    twin, p = TWINS[name], leaves(weights(program))
    image, label = data[0]
    with torch.no_grad():
        expected = twin.network(p, tensors(program, image, label, torch.float32)[0], False, torch.empty(0))
        loss = twin.loss(expected, torch.tensor(label)).item()
    outputs = run(program, "predict", image, label)["output"]
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected.numpy(), rtol=1e-3, atol=1e-6)
    results = run(program, "evaluate", image, label)
    assert results["loss"] == pytest.approx(loss, rel=1e-5)
    assert results["accuracy"] == (expected.numpy().argmax(1) == label).mean(dtype=np.float32)


def test_gradients_of_the_first_step(name: str, data: Batches):
    """The gradient is what one step of plain SGD at rate 1 subtracts from a parameter."""
    compilation, program = compiled(name, optimizer="SGD(lr=1)")
    before = weights(program)
    image, label = (array[:FEW] for array in data[0])
    batch = tensors(program, image, label)
    loss, gradients = TWINS[name].gradients(leaves(before, torch.float64), *batch, kept_units(compilation, 0, FEW))
    assert run(program, "train_step", image, label)["loss"] == pytest.approx(loss, rel=1e-5)
    after = weights(program)
    assert gradients.keys() == {spec.name for spec in program.manifest.variables if spec.kind == "param"}
    for key, gradient in gradients.items():
        found, expected = before[key] - after[key], gradient.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=key)
        if not precedes_batch_norm(name, key):
            assert relative_distance(found, expected) < 1e-3, key  # the check above passes any small gradient


def test_losses_of_twenty_steps(name: str, data: Batches):
    """With the optimizer of the recipe; dropout keeps the same units. The weights must change in the same way too."""
    compilation, program = compiled(name)
    twin = TWINS[name]
    for start in range(0, STEPS, twin.stretch):
        before = weights(program)
        p = leaves(before, torch.float64)
        optimizer = KerasSGD(**twin.optimizer, steps=start, velocity=velocity(program))
        for step, (image, label) in enumerate(data[start : start + twin.stretch], start):
            batch = tensors(program, image, label)
            loss, gradients = twin.gradients(p, *batch, kept_units(compilation, step, BATCH))
            optimizer.update(p, gradients)
            assert run(program, "train_step", image, label)["loss"] == pytest.approx(loss, rel=1e-4), f"step {step}"
        for key, array in weights(program).items():
            if p[key].requires_grad and not precedes_batch_norm(name, key):
                assert relative_distance(array - before[key], p[key].detach().numpy() - before[key]) < 5e-2, key
    assert program.variables()["step"] == STEPS


def velocity(program: LoadedProgram) -> dict[str, torch.Tensor]:
    """The velocities of momentum by parameter: `v` in the optimizer."""
    slots = [spec.name for spec in program.manifest.variables if spec.kind == "slot"]
    return {name.removesuffix(".v"): torch.tensor(program.variables()[name], dtype=torch.float64) for name in slots}


def relative_distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The distance from the expected array, relative to its norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def precedes_batch_norm(name: str, key: str) -> bool:
    """Whether this is a bias that batch normalization cancels: its gradient is zero up to rounding."""
    return name == "cnn" and key.endswith(("conv2d_1.b", "dense_1.b"))


def test_running_statistics(data: Batches):
    """After n steps a variance is 0.99^n plus a weighted sum of those of the batches, which only PyTorch corrects
    for bias, by N / (N - 1) for N values per channel."""
    steps = 3
    _, program = compiled("cnn", optimizer="SGD(lr=0)")
    p = leaves(weights(program))
    with torch.no_grad():
        for image, label in data[:steps]:
            run(program, "train_step", image, label)
            TWINS["cnn"].network(p, tensors(program, image, label, torch.float32)[0], True, torch.empty(0))
    counts = {"conv_block_1.batch_norm_1": 24 * 24, "conv_block_2.batch_norm_1": 8 * 8, "batch_norm_1": 1}
    for layer, positions in counts.items():
        values = BATCH * positions
        mean, variance = (program.variables()[f"{layer}.{part}"] for part in STATES)
        np.testing.assert_allclose(mean, p[f"{layer}.running_mean"].numpy(), rtol=1e-4, atol=1e-6)
        start = 0.99**steps
        corrected = start + (p[f"{layer}.running_var"].numpy() - start) * (values - 1) / values
        np.testing.assert_allclose(variance, corrected, rtol=1e-5)
