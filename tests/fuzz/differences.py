"""Gradients of a graph along a random direction against central differences, in the float64 interpreter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compiler.ir.graph import Graph
from compiler.ir.interpreter import Arrays, interpret
from runtime.errors import IndexOutside
from tests.fuzz.graphs import CONSTANT_WEIGHT, weighted
from tests.fuzz.trajectories import Run

STEPS = (1e-4, 1e-5, 1e-6)  # large steps are more exact for smooth functions, small ones near kinks
RTOL, SCALE = 1e-5, 1e-7
KINK = 0.02  # if the one-sided slopes differ by more, relative to the error, it is a kink


def gradient_problem(graph: Graph, forward: Graph, run: Run, variables: Mapping[str, np.ndarray], seed: int) -> str:
    """Describes what is wrong with the gradients of `graph`, made by add_gradients from `forward`; empty if nothing is.

    Kinks of the outputs at these values, and graphs with a `stop_gradient`, are not reported.
    """
    if any(node.op.name == "stop_gradient" for node in forward.walk()):
        return ""
    try:
        return slope_problem(graph, forward, run, variables, seed)
    except IndexOutside:  # there is no slope
        return ""


def slope_problem(graph: Graph, forward: Graph, run: Run, variables: Mapping[str, np.ndarray], seed: int) -> str:
    values = {**variables, **run.inputs}
    generator = np.random.default_rng(seed)
    moved = [value.name for value in forward.inputs if value.type.is_float]
    direction = {name: generator.normal(size=np.shape(values[name])) for name in moved}
    found = interpret(graph, values, run.batch)
    slope = sum(float((found[f"d_{n}"] * move).sum()) for n, move in direction.items() if f"d_{n}" in found)

    def loss(distance: float) -> tuple[float, float]:
        """The weighted sum of the outputs, and the same of their magnitudes."""
        shifted = {name: values[name] + distance * move for name, move in direction.items()}
        outputs = interpret(forward, {**values, **shifted}, run.batch)
        terms = [weight_of(name, values) * outputs[name] for name in weighted(forward)]
        return sum(float(term.sum()) for term in terms), sum(float(np.abs(term).sum()) for term in terms)

    middle, size = loss(0.0)
    central = left = right = 0.0
    for step in STEPS:
        after, before = loss(step)[0], loss(-step)[0]
        central, right, left = (after - before) / (2 * step), (after - middle) / step, (middle - before) / step
        if not abs(central - slope) > RTOL * (abs(central) + abs(slope)) + SCALE * max(1.0, size):
            return ""
    if abs(right - left) > KINK * abs(central - slope):
        return ""
    return f"slope {slope} along a direction, {central} by differences"


def weight_of(name: str, values: Arrays) -> np.ndarray:
    return np.asarray(values.get(f"d{name}", CONSTANT_WEIGHT))
