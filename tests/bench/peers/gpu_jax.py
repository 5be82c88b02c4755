"""JAX on a GPU: `gpu_jax [--tf32]`, started by tests/bench/gpu.py.

    jit     one function for the step, its arguments donated
    scan    16 steps in one function, by lax.scan

Without --tf32 products are computed in full f32, which is not JAX's default on a GPU. JAX gives no access to CUDA
events: a measurement is the wall-clock time until all steps are done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import cycle
from time import perf_counter
from typing import Any

import jax

jax.config.update("jax_default_matmul_precision", "tensorfloat32" if "--tf32" in sys.argv else "highest")

import jax.numpy as jnp  # noqa: E402  (the settings come first)
import numpy as np  # noqa: E402

from tests.bench.peers.common import IMAGES, RECIPES, float_digits, orders  # noqa: E402
from tests.bench.peers.gpu_protocol import BATCH, STEPS, Columns, Measure, serve  # noqa: E402
from tests.bench.peers.jax_steps import NETWORKS, Network, Parameters, update, update_often  # noqa: E402

SCANNED = 16  # steps


def measured(model: str, scanned: int) -> Measure:
    """A function that measures a model, with `scanned` steps per call."""
    images, labels = map(jnp.asarray, float_digits())
    parameters: Parameters = {}
    NETWORKS[model](Network(parameters), images[:2])
    velocity = jax.tree.map(jnp.zeros_like, parameters) if RECIPES[model].momentum else {}
    state: Any = (parameters, velocity, jax.random.key(0))
    drawn = orders()
    batches = np.array([next(drawn) for _ in range(IMAGES // BATCH)])
    stacks = batches[: len(batches) // scanned * scanned].reshape(-1, scanned, BATCH)
    run: Callable[..., Any] = update if scanned == 1 else update_often
    on_device = cycle([jnp.asarray(stack[0] if scanned == 1 else stack) for stack in stacks])

    def measure() -> float:
        nonlocal state
        jax.block_until_ready(state)
        start, value = perf_counter(), None
        for _ in range(STEPS // scanned):
            state, value = run(model, state, images, labels, next(on_device))
        jax.block_until_ready((state, value))
        return (perf_counter() - start) * 1e6 / STEPS

    measure()
    return measure


def columns(model: str) -> Columns:
    return {"jit": lambda: measured(model, 1), "scan": lambda: measured(model, SCANNED)}


def main() -> None:
    assert jax.default_backend() == "gpu", f"JAX runs on {jax.default_backend()}"
    serve(columns, {"jax": jax.__version__})


if __name__ == "__main__":
    main()
