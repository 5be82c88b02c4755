"""The five recipes of models/ in PyTorch, written from the layers' definitions and not from the code of nnc.

Parameters are leaf tensors with the names and layouts of nnc, channels last; every use permutes them to PyTorch's
layout. So gradients and updates come out in nnc's layout and can be compared directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.parity.torch_or_skip import torch

F = torch.nn.functional
Tensor = torch.Tensor
Tensors = dict[str, Tensor]
STATES = ("running_mean", "running_var")


def leaves(arrays: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float32) -> Tensors:
    """Copies of the variables; all but the statistics of batch normalization require gradients."""
    copies = {name: torch.tensor(array, dtype=dtype) for name, array in arrays.items()}
    return {name: tensor.requires_grad_(not name.endswith(STATES)) for name, tensor in copies.items()}


# Layers: the parameters, the name of the layer in nnc, and its input; images are [N, C, H, W] -------------------------


def dense(p: Tensors, name: str, x: Tensor) -> Tensor:
    """w[in, out] becomes [out, in]."""
    return F.linear(x, p[f"{name}.w"].T, p[f"{name}.b"])


def conv2d(p: Tensors, name: str, x: Tensor, **options: object) -> Tensor:
    """w[height, width, in, out] becomes [out, in, height, width]."""
    return F.conv2d(x, p[f"{name}.w"].permute(3, 2, 0, 1), p.get(f"{name}.b"), **options)


def depthwise_conv2d(p: Tensors, name: str, x: Tensor, **options: object) -> Tensor:
    """w[height, width, channels, m] becomes [channels * m, 1, height, width], one group for each channel."""
    w = p[f"{name}.w"].permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)
    return F.conv2d(x, w, p.get(f"{name}.b"), groups=x.shape[1], **options)


def batch_norm(p: Tensors, name: str, x: Tensor, training: bool) -> Tensor:
    """Keras' momentum 0.99 is PyTorch's 0.01; the running statistics are updated in place."""
    mean, variance, gamma, beta = (p[f"{name}.{part}"] for part in (*STATES, "gamma", "beta"))
    return F.batch_norm(x, mean, variance, gamma, beta, training, momentum=0.01, eps=1e-3)


def lstm(p: Tensors, name: str, x: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
    """The last state for a sequence [N, T, n]; columns of the parameters in the order i, f, g, o."""
    w, u, b = (p[f"{name}.{part}"] for part in "wub")
    h = c = x.new_zeros(len(x), len(u))
    for step in x.unbind(1):
        i, f, g, o = (step @ w + h @ u + b).chunk(4, 1)
        c = gate(f) * c + gate(i) * torch.tanh(g)
        h = gate(o) * torch.tanh(c)
    return h


def hard_sigmoid(x: Tensor) -> Tensor:
    """As in Keras 2; PyTorch's has a slope of 1/6."""
    return torch.clamp(0.2 * x + 0.5, 0, 1)


def channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


def channels_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)


def flatten(x: Tensor) -> Tensor:
    """In the order of nnc, with the channels last."""
    return channels_last(x).flatten(1)


# Networks -------------------------------------------------------------------------------------------------------------


def softmax(p: Tensors, image: Tensor, training: bool, keep: Tensor) -> Tensor:
    return torch.sigmoid(dense(p, "dense_1", image))


def mlp(p: Tensors, image: Tensor, training: bool, keep: Tensor) -> Tensor:
    x = F.relu(dense(p, "dense_1", image))
    x = F.relu(dense(p, "dense_2", x))
    if training:
        x = torch.where(keep, x * 2, 0)
    return dense(p, "dense_3", x)


def cnn(p: Tensors, image: Tensor, training: bool, keep: Tensor) -> Tensor:
    x = channels_first(image)
    for block in ("conv_block_1", "conv_block_2"):
        x = conv2d(p, f"{block}.conv2d_1", x)
        x = F.max_pool2d(F.relu(batch_norm(p, f"{block}.batch_norm_1", x, training)), 2)
    x = F.relu(batch_norm(p, "batch_norm_1", dense(p, "dense_1", flatten(x)), training))
    return dense(p, "dense_2", x)


def separable_cnn(p: Tensors, image: Tensor, training: bool, keep: Tensor) -> Tensor:
    x = F.max_pool2d(F.relu(conv2d(p, "conv2d_1", channels_first(image))), 2)
    x = F.relu(depthwise_conv2d(p, "depthwise_conv2d_1", x))
    x = F.max_pool2d(F.relu(conv2d(p, "conv2d_2", x)), 2)
    x = F.relu(dense(p, "dense_1", flatten(x)))
    return dense(p, "dense_2", x)


def bilstm(p: Tensors, image: Tensor, training: bool, keep: Tensor) -> Tensor:
    forward = lstm(p, "bidirectional_1.lstm_1", image, hard_sigmoid)
    backward = lstm(p, "bidirectional_1.lstm_2", image.flip(1), hard_sigmoid)
    return dense(p, "dense_1", torch.cat([forward, backward], 1))


def one_hot_mean_squared_error(output: Tensor, label: Tensor) -> Tensor:
    return F.mse_loss(output, F.one_hot(label, output.shape[1]).to(output.dtype))


# Training -------------------------------------------------------------------------------------------------------------


class KerasSGD:
    """SGD as Keras defines it: v = momentum v - rate g, then p + v or, with Nesterov's form, p + momentum v - rate g.

    `torch.optim.SGD` multiplies the whole velocity by the current rate, which differs as soon as the rate decays.
    """

    def __init__(
        self,
        lr: float,
        momentum: float = 0,
        nesterov: bool = False,
        decay: float = 0,
        steps: int = 0,
        velocity: Tensors | None = None,
    ):
        self.lr, self.momentum, self.nesterov, self.decay = lr, momentum, nesterov, decay
        self.steps = steps  # steps made so far
        self.velocity = velocity or {}

    @torch.no_grad()
    def update(self, parameters: Tensors, gradients: Tensors) -> None:
        rate = self.lr / (1 + self.decay * self.steps)
        self.steps += 1
        for name, gradient in gradients.items():
            change = -rate * gradient
            if self.momentum:
                velocity = self.momentum * self.velocity.get(name, torch.zeros_like(gradient)) + change
                self.velocity[name] = velocity
                change = self.momentum * velocity + change if self.nesterov else velocity
            parameters[name] += change


@dataclass(frozen=True)
class Twin:
    """A recipe: the network, the settings of SGD, the loss, and how many steps it trains before it restarts from
    nnc's weights."""

    network: Callable[[Tensors, Tensor, bool, Tensor], Tensor]
    optimizer: Mapping[str, float]
    loss: Callable[[Tensor, Tensor], Tensor] = field(default=F.cross_entropy)
    stretch: int = 20

    def gradients(self, p: Tensors, image: Tensor, label: Tensor, keep: Tensor) -> tuple[float, Tensors]:
        """The loss in training, and its gradient by every parameter."""
        trained = {name: tensor for name, tensor in p.items() if tensor.requires_grad}
        loss = self.loss(self.network(p, image, True, keep), label)
        found = torch.autograd.grad(loss, list(trained.values()))
        return loss.item(), dict(zip(trained, found, strict=True))


TWINS = {
    "softmax": Twin(softmax, {"lr": 0.5}, loss=one_hot_mean_squared_error),
    "mlp": Twin(mlp, {"lr": 0.5}),
    "cnn": Twin(cnn, {"lr": 0.5}, stretch=1),
    "separable_cnn": Twin(separable_cnn, {"lr": 0.05, "momentum": 0.9, "nesterov": True}, stretch=1),
    "bilstm": Twin(bilstm, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "decay": 1e-6}),
}
