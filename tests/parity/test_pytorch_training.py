"""Losses and optimizers against PyTorch.

Optimizers follow Keras 3. It adds eps in another place than PyTorch; here eps is too small to matter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.parity.pytorch_models import F, KerasSGD, Tensor, Tensors
from tests.parity.small_programs import BATCH, randomize
from tests.parity.torch_or_skip import torch
from tests.programs import compile_text, initialized, run_program

LOSS = """
layer Shifted()(x: f32[B, 4, 6]) {{
  param shift: f32[4, 6] = zeros
  return x + shift
}}

model Small(x: f32[B, 4, 6]) {{ return Shifted(x) }}

train Small {{
  loss = {loss}
  optimizer = SGD(lr=1)
  batch = 3
}}
"""


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), label.flatten())


# The loss in the language, in PyTorch, and what its outputs and targets are drawn from.
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str, str]] = {
    "mean_squared_error": (F.mse_loss, "normal", "normal"),
    "mean_absolute_error": (F.l1_loss, "normal", "normal"),
    "huber": (F.huber_loss, "normal", "normal"),
    "huber(0.3)": (lambda x, y: F.huber_loss(x, y, delta=0.3), "normal", "normal"),
    "softmax_cross_entropy": (cross_entropy, "normal", "classes"),
    "binary_cross_entropy": (F.binary_cross_entropy, "unit", "unit"),
    "binary_cross_entropy_with_logits": (F.binary_cross_entropy_with_logits, "normal", "unit"),
    "one_hot_mean_squared_error": (lambda x, y: F.mse_loss(x, F.one_hot(y, 6).float()), "normal", "classes"),
}


def drawn(kind: str, generator: np.random.Generator) -> np.ndarray:
    """Numbers in (0, 1), classes for each row of six, or numbers of both signs and several magnitudes."""
    shape = (BATCH, 4, 6)
    if kind == "classes":
        return generator.integers(0, 6, shape[:2])
    if kind == "unit":
        return generator.uniform(0.01, 0.99, shape).astype(np.float32)
    return (generator.normal(0, 1, shape) * generator.choice([0.1, 1, 30], shape)).astype(np.float32)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss(loss: str):
    function, outputs, targets = LOSSES[loss]
    generator = np.random.default_rng(len(loss))
    program = initialized(compile_text(LOSS.format(loss=loss)))
    x, target = drawn(outputs, generator), drawn(targets, generator)
    (name,) = program.inputs("train_step", BATCH).keys() - {"x"}
    leaf = torch.tensor(x, requires_grad=True)
    expected = function(leaf, torch.tensor(target))
    expected.backward()
    after = run_program(program, "train_step", {"x": x, name: target}, BATCH)
    np.testing.assert_allclose(after["loss"], expected.item(), rtol=1e-5)
    np.testing.assert_allclose(-after["shifted_1.shift"], leaf.grad.sum(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e2, 1e4])
def test_cross_entropy_of_small_and_large_logits(scale: float):
    generator = np.random.default_rng(0)
    program = initialized(compile_text(LOSS.format(loss="softmax_cross_entropy")))
    x = (generator.normal(0, 1, (BATCH, 4, 6)) * scale).astype(np.float32)
    label = drawn("classes", generator)
    leaf = torch.tensor(x, requires_grad=True)
    expected = cross_entropy(leaf, torch.tensor(label))
    expected.backward()
    after = run_program(program, "train_step", {"x": x, "label": label}, BATCH)
    np.testing.assert_allclose(after["loss"], expected.item(), rtol=1e-5)
    np.testing.assert_allclose(-after["shifted_1.shift"], leaf.grad.sum(0), rtol=1e-4, atol=1e-6)


# Optimizers -----------------------------------------------------------------------------------------------------------

REGRESSION = """
model Small(x: f32[B, 4]) {{ return x |> Dense(3) }}
train Small {{ loss = mean_squared_error; optimizer = {optimizer}; batch = 3 }}
"""
Update = Callable[[], None]


def from_torch(kind: Callable[..., torch.optim.Optimizer], **settings: object) -> Callable[[Tensors], Update]:
    def start(p: Tensors) -> Update:
        return kind(list(p.values()), **settings).step

    return start


def keras_sgd(**settings: object) -> Callable[[Tensors], Update]:
    def start(p: Tensors) -> Update:
        optimizer = KerasSGD(**settings)
        return lambda: optimizer.update(p, {name: tensor.grad for name, tensor in p.items()})

    return start


def halving(p: Tensors) -> Update:
    """SGD with the rates 0.1, 0.1, 0.05, 0.05, 0.025."""
    optimizer = torch.optim.SGD(list(p.values()), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)

    def update() -> None:
        optimizer.step()
        schedule.step()

    return update


SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
RMSPROP, ADAGRAD = torch.optim.RMSprop, torch.optim.Adagrad
OPTIMIZERS = {
    "SGD(lr=0.1)": from_torch(SGD, lr=0.1),
    "SGD(lr=0.1, momentum=0.9)": from_torch(SGD, lr=0.1, momentum=0.9),
    "SGD(lr=0.1, momentum=0.9, nesterov=true)": from_torch(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "SGD(lr=0.1, momentum=0.9, nesterov=true, decay=0.3)": keras_sgd(lr=0.1, momentum=0.9, nesterov=True, decay=0.3),
    "SGD(lr=0.1, momentum=0.9, decay=0.3)": keras_sgd(lr=0.1, momentum=0.9, decay=0.3),
    "SGD(lr=step(0.1, every=2, factor=0.5))": halving,
    "Adam(lr=0.05)": from_torch(ADAM, lr=0.05, eps=1e-7),
    "Adam(lr=0.05, beta1=0.8, beta2=0.95)": from_torch(ADAM, lr=0.05, betas=(0.8, 0.95), eps=1e-7),
    "AdamW(lr=0.05, weight_decay=0.2)": from_torch(ADAMW, lr=0.05, eps=1e-7, weight_decay=0.2),
    "RMSprop(lr=0.05, eps=1e-12)": from_torch(RMSPROP, lr=0.05, alpha=0.9, eps=1e-12),
    "RMSprop(lr=0.05, rho=0.8, momentum=0.7, eps=1e-12)": from_torch(
        RMSPROP, lr=0.05, alpha=0.8, momentum=0.7, eps=1e-12
    ),
    "RMSprop(lr=0.05, centered=true, eps=1e-12)": from_torch(RMSPROP, lr=0.05, alpha=0.9, centered=True, eps=1e-12),
    "Adagrad(lr=0.1)": from_torch(ADAGRAD, lr=0.1, initial_accumulator_value=0.1, eps=1e-7),
    "Adagrad(lr=0.1, initial=0)": from_torch(ADAGRAD, lr=0.1, eps=1e-7),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer(optimizer: str):
    """Five steps of a linear regression, each with a different batch."""
    generator = np.random.default_rng(0)
    program = initialized(compile_text(REGRESSION.format(optimizer=optimizer)))
    before = randomize(program, generator)
    p = {name: torch.tensor(array, requires_grad=True) for name, array in before.items()}
    update = OPTIMIZERS[optimizer](p)
    for _ in range(5):
        x = generator.normal(0, 1, (BATCH, 4)).astype(np.float32)
        target = generator.normal(0, 1, (BATCH, 3)).astype(np.float32)
        for tensor in p.values():
            tensor.grad = None
        loss = F.mse_loss(torch.tensor(x) @ p["dense_1.w"] + p["dense_1.b"], torch.tensor(target))
        loss.backward()
        update()
        after = run_program(program, "train_step", {"x": x, "target": target}, BATCH)
        np.testing.assert_allclose(after["loss"], loss.item(), rtol=1e-4)
    for name, tensor in p.items():
        moved = after[name] - before[name]
        np.testing.assert_allclose(moved, tensor.detach().numpy() - before[name], rtol=1e-3, atol=1e-5, err_msg=name)
