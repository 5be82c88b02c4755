"""Graphs of the IR from a seed: some ops of the table on values of ranks 0 to 4, several of them returned.

A third have variables and the name of a model's graph, so that they get the special treatment of those: `predict`
(parameters folded) and `train_step` (new values of variables, written over the old ones).
"""

from __future__ import annotations

from contextlib import suppress
from random import Random

from compiler.gradient.autodiff import gradients
from compiler.ir.builder import Builder, literal
from compiler.ir.graph import Graph, Literal, Value
from compiler.ir.printer import print_graph
from compiler.ir.types import TypeRuleError
from tests.fuzz.drafts import Draft
from tests.fuzz.proposals import PROPOSALS, attempt
from tests.programs import read_graph

NAMES = ("graph", "graph", "graph", "graph", "predict", "train_step")
MOST_OPS = 30
ATTEMPTS = 3  # proposals per op, since some are refused
CONSTANT_WEIGHT = 0.5  # of an output whose weight is not an input


def generate_graph(seed: int) -> Graph:
    """A graph without gradients, of 1 to 30 ops (guards may add some)."""
    random = Random(seed)
    draft = Draft(random, graph := Graph(random.choice(("fuzzed", *NAMES))))
    draft.variables = graph.name in ("predict", "train_step")
    names, wanted = sorted(PROPOSALS), random.choice((1, 2, 3, 5, 8, 12, 20, MOST_OPS))
    favourites = random.sample(names, 6)  # so that the same ops meet often
    for _ in range(wanted):
        name = random.choice(favourites if random.random() < 0.5 else names)
        any(attempt(draft, name) for _ in range(ATTEMPTS))
        if len(graph.nodes) >= wanted:
            break
    if not graph.nodes:
        draft.emit("tanh", [draft.floats()], {})
    graph.outputs = {f"y{i}": value for i, value in enumerate(chosen_outputs(draft))}
    if graph.name == "train_step":
        update_variables(draft)
    return graph


def chosen_outputs(draft: Draft) -> list[Value]:
    """The last value and a few others, sometimes an input or the same value twice."""
    results = [value for node in draft.graph.nodes for value in node.results]
    count = draft.random.choice((0, 0, 1, 2, 3))
    return [results[-1], *draft.random.choices([*results, *results, *draft.values], k=count)]


def update_variables(draft: Draft) -> None:
    """New values for some variables, from computed values or from each other."""
    for variable in draft.graph.of_kind("param"):
        if draft.random.random() >= 0.8:
            continue
        with suppress(TypeRuleError):  # some variables are too large to compute with
            change = draft.small(draft.typed(variable.type), 4.0)
            moved = draft.emit("sub", [variable, draft.emit("mul", [change, draft.typed(variable.type)], {})], {})
            draft.graph.outputs[variable.name] = draft.small(moved, 4.0) if draft.random.random() < 0.8 else change


def weighted(graph: Graph) -> dict[str, Value]:
    """The outputs of which the scalar that is differentiated is a weighted sum: floats, each value once."""
    found: dict[Value, str] = {}
    for name, output in graph.outputs.items():
        if output.type.is_float and not isinstance(output, Literal):
            found.setdefault(output, name)
    return {name: output for output, name in found.items()}


def add_gradients(graph: Graph, seed: int) -> Graph:
    """A copy with the gradients of a weighted sum of the outputs, an output `d_x` for each float input x that has one.

    The weights are inputs, `dy0` for the output y0, or sometimes a constant. Raises NotDifferentiable.
    """
    graph = read_graph(print_graph(graph))
    random, builder = Random(seed), Builder(graph)
    floats = [value for value in graph.inputs if value.type.is_float]
    seeds: dict[Value, Value] = {}
    for name, output in weighted(graph).items():
        if random.random() < 0.8:
            seeds[output] = builder.input(f"d{name}", output.type, "input")
        else:
            seeds[output] = builder.broadcast(literal(CONSTANT_WEIGHT, output.type.dtype), shape=output.type.shape)
    for value, gradient in zip(floats, gradients(builder, seeds, floats), strict=True):
        if gradient is not None:
            graph.outputs[f"d_{value.name}"] = gradient
    return graph
