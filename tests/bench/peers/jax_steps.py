"""Training steps of JAX, one jitted function that updates the parameters in place: `jax_steps MODEL THREADS [scan]`.

With `scan` the function is an epoch, its batches in one `lax.scan`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tests.bench.peers.common import BATCH, IMAGES, MODELS, RECIPES, float_digits, measure, orders, report

Parameters = dict[str, Array]


class Network:
    """Layers that create their parameters when they are first applied, and later find them by order."""

    def __init__(self, parameters: Parameters, key: Array | None = None):
        self.parameters, self.key, self.used = parameters, key, 0

    def parameter(self, shape: tuple[int, ...], scale: float) -> Array:
        name = f"p{self.used:02d}"
        self.used += 1
        if name not in self.parameters:
            random = np.random.default_rng(self.used)
            self.parameters[name] = jnp.asarray(random.normal(0, 1, shape) * scale, jnp.float32)
        return self.parameters[name]

    def bias(self, size: int) -> Array:
        return self.parameter((size,), 0)

    def dense(self, x: Array, units: int) -> Array:
        return x @ self.parameter((x.shape[-1], units), x.shape[-1] ** -0.5) + self.bias(units)

    def conv(self, x: Array, filters: int, kernel: int, groups: int = 1) -> Array:
        channels = x.shape[-1] // groups
        w = self.parameter((kernel, kernel, channels, filters), (kernel * kernel * channels) ** -0.5)
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=layout, feature_group_count=groups)
        return y + self.bias(filters)

    def batch_norm(self, x: Array) -> Array:
        """Without running statistics, in JAX's favour."""
        axes = tuple(range(x.ndim - 1))
        gamma, beta = 1 + self.bias(x.shape[-1]), self.bias(x.shape[-1])
        return (x - x.mean(axes)) * (gamma * lax.rsqrt(x.var(axes) + 1e-3)) + beta

    def dropout(self, x: Array) -> Array:
        keep = jax.random.bernoulli(self.key, 0.5, x.shape) if self.key is not None else True
        return jnp.where(keep, x * 2, 0)

    def lstm(self, x: Array, units: int) -> Array:
        """The last state; x[T, N, n]."""
        w, u = (self.parameter((n, 4 * units), n**-0.5) for n in (x.shape[-1], units))
        b = self.bias(4 * units)

        def cell(carry: tuple[Array, Array], inputs: Array) -> tuple[tuple[Array, Array], None]:
            h, c = carry
            i, f, g, o = jnp.split(inputs + h @ u, 4, axis=-1)
            c = hard_sigmoid(f) * c + hard_sigmoid(i) * jnp.tanh(g)
            return (hard_sigmoid(o) * jnp.tanh(c), c), None

        zeros = jnp.zeros((x.shape[1], units))
        (h, _), _ = lax.scan(cell, (zeros, zeros), x @ w + b)
        return h


def hard_sigmoid(x: Array) -> Array:
    return jnp.clip(0.2 * x + 0.5, 0, 1)


def pool(x: Array) -> Array:
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def softmax(net: Network, image: Array) -> Array:
    return jax.nn.sigmoid(net.dense(flat(image), 10))


def mlp(net: Network, image: Array) -> Array:
    x = jax.nn.relu(net.dense(flat(image), 512))
    return net.dense(net.dropout(jax.nn.relu(net.dense(x, 512))), 10)


def cnn(net: Network, image: Array) -> Array:
    x = image[..., None]
    for filters in (24, 48):
        x = pool(jax.nn.relu(net.batch_norm(net.conv(x, filters, 5))))
    return net.dense(jax.nn.relu(net.batch_norm(net.dense(flat(x), 512))), 10)


def separable_cnn(net: Network, image: Array) -> Array:
    x = pool(jax.nn.relu(net.conv(image[..., None], 24, 5)))
    x = jax.nn.relu(net.conv(x, 24, 5, groups=24))
    x = pool(jax.nn.relu(net.conv(x, 48, 1)))
    return net.dense(jax.nn.relu(net.dense(flat(x), 512)), 10)


def bilstm(net: Network, image: Array) -> Array:
    x = image.transpose(1, 0, 2)
    return net.dense(jnp.concatenate([net.lstm(x, 128), net.lstm(x[::-1], 128)], axis=1), 10)


NETWORKS: dict[str, Callable[[Network, Array], Array]] = dict(
    zip(MODELS, (softmax, mlp, cnn, separable_cnn, bilstm), strict=True)
)


def loss(parameters: Parameters, model: str, image: Array, label: Array, key: Array) -> Array:
    outputs, target = NETWORKS[model](Network(parameters, key), image), jax.nn.one_hot(label, 10)
    if model == "softmax":
        return jnp.mean((outputs - target) ** 2)
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(outputs) * target, axis=1))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def update(model: str, state: Any, images: Array, labels: Array, batch: Array) -> Any:
    """(parameters, velocities, random key) after a step on the examples of a batch, and the loss."""
    parameters, velocity, key = state
    key, used = jax.random.split(key)
    value, gradient = jax.value_and_grad(loss)(parameters, model, images[batch], labels[batch], used)
    lr, momentum = RECIPES[model].lr, RECIPES[model].momentum
    if momentum:
        velocity = jax.tree.map(lambda v, g: momentum * v - lr * g, velocity, gradient)
        parameters = jax.tree.map(lambda p, v, g: p + momentum * v - lr * g, parameters, velocity, gradient)
    else:
        parameters = jax.tree.map(lambda p, g: p - lr * g, parameters, gradient)
    return (parameters, velocity, key), value


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def update_often(model: str, state: Any, images: Array, labels: Array, batches: Array) -> Any:
    """The state after a step on each of the batches, and the losses."""
    return lax.scan(lambda state, batch: update(model, state, images, labels, batch), state, batches)


def main() -> None:
    model, whole = sys.argv[1], "scan" in sys.argv[3:]
    images, labels = map(jnp.asarray, float_digits())
    parameters: Parameters = {}
    NETWORKS[model](Network(parameters), images[:2])
    velocity = jax.tree.map(jnp.zeros_like, parameters) if RECIPES[model].momentum else {}
    state, value = (parameters, velocity, jax.random.key(0)), None
    batches = orders()

    epoch = jnp.asarray([next(batches) for _ in range(IMAGES // BATCH)])

    def step() -> None:
        nonlocal state, value
        if whole:
            state, value = update_often(model, state, images, labels, epoch)
        else:
            state, value = update(model, state, images, labels, next(batches))

    figures = measure(step, lambda: jax.block_until_ready((state, value)))
    report([figure / len(epoch) if whole else figure for figure in figures], jax=jax.__version__)


if __name__ == "__main__":
    main()
