"""A small `.nn` program around a single layer, for comparing its outputs and gradients with PyTorch's."""

from __future__ import annotations

import numpy as np

from runtime.program import Arrays, LoadedProgram
from tests.programs import compile_text, initialized

BATCH = 3
# The loss is a weighted sum of the outputs: the weights are the gradient that flows back. Training with SGD(lr=1)
# subtracts the gradient from each parameter. `shift` is added to the input, so its gradient is that of the input,
# summed over the batch.
LAYER = """
layer Shifted()(x: f32[B, {dims}]) {{
  param shift: f32[{dims}] = zeros
  return x + shift
}}

fn weighted(output: f32[B, ...], weight: f32[B, ...]) {{ return sum(output * weight) }}

model Small(x: f32[B, {dims}]) {{ return x |> Shifted |> {layer} }}

train Small {{
  loss = weighted
  optimizer = SGD(lr=1)
  batch = {batch}
}}
"""


def layer_program(layer: str, shape: tuple[int, ...]) -> LoadedProgram:
    """The program LAYER for one layer or function and the shape of an example."""
    return initialized(compile_text(LAYER.format(layer=layer, dims=", ".join(map(str, shape)), batch=BATCH)))


def randomize(program: LoadedProgram, generator: np.random.Generator) -> Arrays:
    """Gives every parameter other values than it starts with, of about the same size; returns copies by name."""
    variables = program.variables()
    names = [spec.name for spec in program.manifest.variables if spec.kind == "param"]
    for name in names:
        if not name.endswith(".shift"):
            variables[name][...] += generator.normal(0, 0.3, variables[name].shape)
    return {name: variables[name].copy() for name in names}
