"""The rules of `simplify`: every equation separately, as a graph made from its text, and the others as IR text."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from compiler.ir.builder import Builder, literal
from compiler.ir.graph import Graph, Value
from compiler.ir.interpreter import interpret
from compiler.ir.printer import print_graph
from compiler.ir.types import parse_type
from compiler.ir.verifier import verify_graph
from compiler.passes.algebra import ALWAYS, FLOATS
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.equations import MODERATE, NumberPattern, Pattern, VariablePattern, equation
from compiler.passes.pipeline import run_pipeline
from compiler.passes.simplify import simplify
from tests.passes.simplify_cases import REWRITTEN, UNTOUCHED
from tests.programs import BATCH, MODELS, NUMPY_PIPELINE, TRAINED_GRAPHS, compiled_model, read_graph, values_for

# The types of the variables in equations; low and high are numbers.
TYPES = {"c": "bool[B,3]", "d": "bool[B,3]", "s": "f32[B,1]", "t": "f32[]", "p": "f32[3]", "q": "f32[]"}
TYPES |= {"a": "f32[3]", "b": "f32[]", "u": "f32[B,1]", "v": "f32[]"}
LIMITS = {"low": -0.25, "high": 0.5}


def side(pattern: Pattern) -> Graph:
    """One side of an equation as a graph."""
    graph = Graph("g")
    builder = Builder(graph)
    known: dict[str, Value] = {name: literal(value, "f32") for name, value in LIMITS.items()}

    def build(part: Pattern) -> Value | float:
        if isinstance(part, NumberPattern):
            return part.value
        if isinstance(part, VariablePattern):
            if part.name not in known:
                given = builder.input(part.name, parse_type(TYPES.get(part.name, "f32[B,3]")), "input")
                known[part.name] = builder.sqrt(builder.exp(given)) if part.name in MODERATE else given
            return known[part.name]
        attributes: dict[str, object] = {name: LIMITS[value.name] for name, value in part.attributes}
        if part.op == "cast":
            attributes["dtype"] = "f32"
        operands = [
            bool(value) if part.op == "select" and value in (0.0, 1.0) else value for value in map(build, part.operands)
        ]
        return builder.emit(part.op, operands, attributes)

    value = build(pattern)
    assert isinstance(value, Value)
    graph.outputs = {"y": value}
    graph.inputs.sort(key=lambda each: each.name)
    return graph


def simplified(graph: Graph) -> str:
    """The text after the pass, without dead code."""
    return print_graph(remove_dead_code(simplify(graph)))


def assert_same_meaning(before: Graph, after: Graph) -> None:
    inputs = values_for(before, BATCH)
    with np.errstate(invalid="ignore"):
        expected, found = interpret(before, inputs, BATCH), interpret(after, inputs, BATCH)
    for name, value in expected.items():
        scale = max(1.0, float(np.abs(value).max(initial=0.0)))
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12 * scale, err_msg=name)


@pytest.mark.parametrize("text", ALWAYS + FLOATS)
def test_equation(text: str):
    """Both sides become the same graph, which computes what the left side does."""
    law = equation(text)
    left = side(law.left)
    assert simplified(left).splitlines()[1:] == simplified(side(law.right)).splitlines()[1:]
    assert_same_meaning(left, simplify(left))


@pytest.mark.parametrize("what", REWRITTEN)
def test_rewritten(what: str):
    before, after = REWRITTEN[what]
    graph = read_graph(before)
    assert simplified(graph) == after.strip()
    assert_same_meaning(graph, read_graph(after))


@pytest.mark.parametrize("what", UNTOUCHED)
def test_untouched(what: str):
    assert print_graph(simplify(read_graph(UNTOUCHED[what]))) == UNTOUCHED[what].strip()


@pytest.mark.parametrize("text", ALWAYS + FLOATS)
def test_an_equation_twice_is_once(text: str):
    once = simplify(side(equation(text).left))
    assert print_graph(simplify(once)) == print_graph(once)


@pytest.mark.parametrize("graph", TRAINED_GRAPHS)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_twice_is_once(model: str, graph: str):
    """Before work is hoisted out of loops, so that their bodies are complete."""
    once = simplify(merge_common_subexpressions(compiled_model(model).module[graph]))
    verify_graph(once, "simplify")
    assert print_graph(simplify(once)) == print_graph(once)


def test_a_long_chain_takes_one_walk():
    """Every node is visited once, however long the chain of factors, terms and sums is."""
    graph = Graph("g")
    builder = Builder(graph)
    x = y = builder.input("x", parse_type("f32[B,3]"), "input")
    for i in range(5000):
        y = builder.neg(builder.add(builder.mul(y, 2.0), x)) if i % 2 else builder.add(builder.exp(y), y)
    graph.outputs = {"y": builder.sum(y, axes=(0,))}
    assert len(simplify(graph).nodes) < 2 * len(graph.nodes)


def test_a_batch_normalization_reads_each_large_tensor_twice():
    """In training: the sums of x, of its square, of dy and of dy * x; everything else is arithmetic on channels."""
    graph = trained("cnn")
    sums = [node for node in graph.nodes if node.op.name == "sum" and node.operands[0].type.shape[-1] in (24, 48, 512)]
    assert len(sums) == 3 * 4
    large = [node for node in graph.nodes if node.result.type.shape in {n.operands[0].type.shape for n in sums}]
    assert not [node for node in large if node.op.name in ("neg", "broadcast", "div", "sub")]


def test_a_gate_is_clipped_and_passes_its_gradient_by_one_selection():
    graph = trained("bilstm")
    bodies = [node.body for node in graph.nodes if node.op.name == "scan" and "backward" in node.body.name]
    assert len(bodies) == 2
    for body in bodies:
        ops = Counter(node.op.name for node in body.nodes)
        assert (ops["and"], ops["lt"], ops["select"], ops["concat"], ops["pad"]) == (3, 6, 3, 1, 0)


def trained(model: str) -> Graph:
    """The training step after `simplify`."""
    names = [each.name for each in NUMPY_PIPELINE]
    module = {"train_step": compiled_model(model).module["train_step"]}
    return remove_dead_code(run_pipeline(module, NUMPY_PIPELINE[: names.index("simplify") + 1])["train_step"])
