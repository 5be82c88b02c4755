"""The rules of `simplify`: every equation by itself, made into a graph from its text, and the others as IR text."""

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
from compiler.passes.equations import Number, Pattern, Variable, equation
from compiler.passes.pipeline import NUMPY_PIPELINE, run_pipeline
from compiler.passes.simplify import simplify
from tests.programs import BATCH, MODELS, TRAINED_GRAPHS, compiled_model, read_graph, values_for

# The types of the variables in equations; low and high are numbers.
TYPES = {"c": "bool[B,3]", "d": "bool[B,3]", "s": "f32[B,1]", "t": "f32[]", "p": "f32[3]", "q": "f32[]"}
LIMITS = {"low": -0.25, "high": 0.5}


def side(pattern: Pattern) -> Graph:
    """One side of an equation as a graph."""
    graph = Graph("g")
    builder = Builder(graph)
    known: dict[str, Value] = {name: literal(value, "f32") for name, value in LIMITS.items()}

    def build(part: Pattern) -> Value | float:
        if isinstance(part, Number):
            return part.value
        if isinstance(part, Variable):
            if part.name not in known:
                known[part.name] = builder.input(part.name, parse_type(TYPES.get(part.name, "f32[B,3]")), "input")
            return known[part.name]
        attributes = {name: LIMITS[value.name] for name, value in part.attributes}
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
    """The text after the pass, without what it did without."""
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


# Text before, and after without dead code: the rules that are not equations, and what rules do together.
REWRITTEN = {
    "numbers of a chain come together, and both sides of a commutative op are alike": (
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[B,3] = mul(0.5, %x)
  %1: f32[B,3] = mul(%0, 3.0)
  %2: f32[B,3] = mul(%c, %1)
  %3: f32[B,3] = div(%2, 4.0)
  return y=%3
}""",
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[3] = mul(%c, 0.375)
  %1: f32[B,3] = mul(%x, %0)
  return y=%1
}""",
    ),
    "elementwise ops broadcast by themselves": (
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param) {
  %0: f32[1,1,3] = reshape(%c, shape=[1,1,3])
  %1: f32[B,2,3] = broadcast(%0, shape=[B,2,3])
  %2: f32[B,2,3] = broadcast(0.5, shape=[B,2,3])
  %3: f32[B,2,3] = mul(%x, %1)
  %4: f32[B,2,3] = max(%3, %2)
  return y=%4
}""",
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param) {
  %0: f32[B,2,3] = mul(%x, %c)
  %1: f32[B,2,3] = max(%0, 0.5)
  return y=%1
}""",
    ),
    "what is the same everywhere is computed once": (
        """
graph g(%a: f32[3] param, %b: f32[] param) {
  %0: f32[B,3] = broadcast(%a, shape=[B,3])
  %1: f32[B,3] = broadcast(%b, shape=[B,3])
  %2: f32[B,3] = sub(%0, %1)
  %3: f32[B,3] = exp(%2)
  return y=%3
}""",
        """
graph g(%a: f32[3] param, %b: f32[] param) {
  %0: f32[3] = sub(%a, %b)
  %1: f32[3] = exp(%0)
  %2: f32[B,3] = broadcast(%1, shape=[B,3])
  return y=%2
}""",
    ),
    "views of a repeated number": (
        """
graph g(%x: f32[B,2] input, %a: f32[] param) {
  %0: f32[1] = reshape(%a, shape=[1])
  %1: f32[B] = broadcast(%0, shape=[B])
  %2: f32[B,1] = reshape(%1, shape=[B,1])
  %3: f32[B,2] = broadcast(%2, shape=[B,2])
  %4: f32[2,B] = transpose(%3, permutation=[1,0])
  %5: f32[B,2] = mul(%x, %3)
  return y=%5, z=%4
}""",
        """
graph g(%x: f32[B,2] input, %a: f32[] param) {
  %0: f32[2,B] = broadcast(%a, shape=[2,B])
  %1: f32[B,2] = mul(%x, %a)
  return y=%1, z=%0
}""",
    ),
    "views of views": (
        """
graph g(%x: f32[2,3,4] input, %c: f32[4] param) {
  %0: f32[6,4] = reshape(%x, shape=[6,4])
  %1: f32[24] = reshape(%0, shape=[24])
  %2: f32[4,2,3] = transpose(%x, permutation=[2,0,1])
  %3: f32[3,4,2] = transpose(%2, permutation=[2,0,1])
  %4: f32[3,4] = broadcast(%c, shape=[3,4])
  %5: f32[2,3,4] = broadcast(%4, shape=[2,3,4])
  %6: f32[2,3,4] = flip(%x, axes=[0,1])
  %7: f32[2,3,4] = flip(%6, axes=[0,1])
  %8: f32[2,3,4] = stop_gradient(%7)
  return u=%1, v=%3, w=%5, z=%8
}""",
        """
graph g(%x: f32[2,3,4] input, %c: f32[4] param) {
  %0: f32[24] = reshape(%x, shape=[24])
  %1: f32[3,4,2] = transpose(%x, permutation=[1,2,0])
  %2: f32[2,3,4] = broadcast(%c, shape=[2,3,4])
  return u=%0, v=%1, w=%2, z=%x
}""",
    ),
    "ops that change nothing": (
        """
graph g(%x: f32[2,3] input) {
  %0: f32[2,3] = reshape(%x, shape=[2,3])
  %1: f32[2,3] = transpose(%0, permutation=[0,1])
  %2: f32[2,3] = broadcast(%1, shape=[2,3])
  %3: f32[2,3] = cast(%2, dtype="f32")
  %4: f32[2,3] = slice(%3, start=[0,0], stop=[2,3], step=[1,1])
  %5: f32[2,3] = concat(%4, axis=1)
  %6: f32[2,3] = pad(%5, low=[0,0], high=[0,0], interior=[], value=0.0)
  %7: f32[2,3] = flip(%6, axes=[])
  %8: f32[2,3] = sum(%7, axes=[], keepdims=false)
  return y=%8
}""",
        """
graph g(%x: f32[2,3] input) {
  return y=%x
}""",
    ),
    "a slice of a concat within one part": (
        """
graph g(%x: f32[B,3] input, %y: f32[B,4] input) {
  %0: f32[B,7] = concat(%x, %y, axis=1)
  %1: f32[B,2] = slice(%0, start=[0,4], stop=[B,7], step=[1,2])
  %2: f32[B,3] = slice(%0, start=[0,0], stop=[B,3], step=[1,1])
  return a=%1, b=%2
}""",
        """
graph g(%x: f32[B,3] input, %y: f32[B,4] input) {
  %0: f32[B,2] = slice(%y, start=[0,1], stop=[B,4], step=[1,2])
  return a=%0, b=%x
}""",
    ),
    "the gradients of slices side by side": (
        """
graph g(%a: f32[B,1] input, %b: f32[B,2] input, %c: f32[B,3] input) {
  %0: f32[B,6] = pad(%c, low=[0,3], high=[0,0], interior=[], value=0.0)
  %1: f32[B,6] = pad(%b, low=[0,1], high=[0,3], interior=[], value=0.0)
  %2: f32[B,6] = add(%0, %1)
  %3: f32[B,6] = pad(%a, low=[0,0], high=[0,5], interior=[], value=0.0)
  %4: f32[B,6] = add(%2, %3)
  return y=%4
}""",
        """
graph g(%a: f32[B,1] input, %b: f32[B,2] input, %c: f32[B,3] input) {
  %0: f32[B,6] = concat(%a, %b, %c, axis=1)
  return y=%0
}""",
    ),
    "the gradient of min(max(x, 0), 1)": (
        """
graph g(%x: f32[B,3] input, %dy: f32[B,3] input) {
  %0: f32[B,3] = max(%x, 0.0)
  %1: f32[B,3] = min(%0, 1.0)
  %2: bool[B,3] = lt(%0, 1.0)
  %3: f32[B,3] = select(%2, %dy, 0.0)
  %4: bool[B,3] = lt(0.0, %x)
  %5: f32[B,3] = select(%4, %3, 0.0)
  return y=%1, dx=%5
}""",
        """
graph g(%x: f32[B,3] input, %dy: f32[B,3] input) {
  %0: f32[B,3] = clip(%x, low=0.0, high=1.0)
  %1: bool[B,3] = lt(%x, 1.0)
  %2: bool[B,3] = lt(0.0, %x)
  %3: bool[B,3] = and(%2, %1)
  %4: f32[B,3] = select(%3, %dy, 0.0)
  return y=%0, dx=%4
}""",
    ),
    "sums move inside": (
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param, %r: f32[2,1] param, %b: f32[B,1,1] input) {
  %0: f32[B,2,3] = neg(%x)
  %1: f32[3] = sum(%0, axes=[0,1], keepdims=false)
  %2: f32[B,2,3] = exp(%x)
  %3: f32[B,2,3] = mul(%2, %c)
  %4: f32[3] = sum(%3, axes=[0,1], keepdims=false)
  %5: f32[B,2,3] = sin(%x)
  %6: f32[B,2,3] = sub(%r, %5)
  %7: f32[B,2,1] = sum(%6, axes=[2], keepdims=true)
  %8: f32[B,2,3] = cos(%x)
  %9: f32[B,2,3] = mul(%b, %8)
  %10: f32[B] = sum(%9, axes=[1,2], keepdims=false)
  return u=%1, v=%4, w=%7, z=%10
}""",
        """
graph g(%x: f32[B,2,3] input, %c: f32[3] param, %r: f32[2,1] param, %b: f32[B,1,1] input) {
  %0: f32[3] = sum(%x, axes=[0,1], keepdims=false)
  %1: f32[3] = neg(%0)
  %2: f32[B,2,3] = exp(%x)
  %3: f32[3] = sum(%2, axes=[0,1], keepdims=false)
  %4: f32[3] = mul(%3, %c)
  %5: f32[B,2,3] = sin(%x)
  %6: f32[B,2,1] = sum(%5, axes=[2], keepdims=true)
  %7: f32[2,1] = mul(%r, 3.0)
  %8: f32[B,2,1] = sub(%7, %6)
  %9: f32[B,2,3] = cos(%x)
  %10: f32[B] = sum(%9, axes=[1,2], keepdims=false)
  %11: f32[B] = reshape(%b, shape=[B])
  %12: f32[B] = mul(%11, %10)
  return u=%1, v=%4, w=%8, z=%12
}""",
    ),
    "a sum that follows from others": (
        """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %c: f32[3] param) {
  %0: f32[3] = sum(%x, axes=[0], keepdims=false)
  %1: f32[3] = sum(%y, axes=[0], keepdims=false)
  %2: f32[B,3] = mul(%y, %c)
  %3: f32[B,3] = add(%x, %2)
  %4: f32[B,3] = add(%3, %2)
  %5: f32[3] = sum(%4, axes=[0], keepdims=false)
  return u=%0, v=%1, w=%5
}""",
        """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %c: f32[3] param) {
  %0: f32[3] = sum(%x, axes=[0], keepdims=false)
  %1: f32[3] = sum(%y, axes=[0], keepdims=false)
  %2: f32[3] = mul(%c, 2.0)
  %3: f32[3] = mul(%1, %2)
  %4: f32[3] = add(%0, %3)
  return u=%0, v=%1, w=%4
}""",
    ),
    "the sum of what is repeated, and of what is known of the batch": (
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[B,3] = broadcast(%c, shape=[B,3])
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  %2: f32[B,3] = add(%x, %c)
  %3: f32[1,3] = sum(%2, axes=[0], keepdims=true)
  return a=%1, b=%3
}""",
        """
graph g(%x: f32[B,3] input, %c: f32[3] param) {
  %0: f32[] = extent(factor=1, power=1)
  %1: f32[3] = mul(%c, %0)
  %2: f32[1,3] = sum(%x, axes=[0], keepdims=true)
  %3: f32[] = extent(factor=1, power=1)
  %4: f32[3] = mul(%c, %3)
  %5: f32[1,3] = add(%2, %4)
  return a=%1, b=%5
}""",
    ),
    "the body of a scan": (
        """
graph g(%h: f32[3] input, %u: f32[4,3] input) {
  %0: f32[3] = scan(%h, %u, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[3] carry, %x: f32[3] sequence) {
    %0: f32[3] = neg(%x)
    %1: f32[3] = add(%h, %0)
    return y0=%1
  })
  return h=%0
}""",
        """
graph g(%h: f32[3] input, %u: f32[4,3] input) {
  %0: f32[3] = scan(%h, %u, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[3] carry, %x: f32[3] sequence) {
    %0: f32[3] = sub(%h, %x)
    return y0=%0
  })
  return h=%0
}""",
    ),
}

# Near misses.
UNTOUCHED = {
    "0 x stays, for x may not be finite, and so does a selection of 0": """
graph g(%c: bool[B,3] input, %x: f32[B,3] input) {
  %0: f32[B,3] = mul(%x, 0.0)
  %1: f32[B,3] = select(%c, %x, 0.0)
  %2: f32[B,3] = sub(%x, %x)
  return a=%0, b=%1, c=%2
}""",
    "another zero, and a choice between three": """
graph g(%c: bool[3] input, %d: bool[3] input, %x: f32[3] input, %y: f32[3] input) {
  %0: f32[3] = select(%c, %x, 0.0)
  %1: f32[3] = select(%d, %0, -0.0)
  %2: f32[3] = select(%c, %x, %y)
  %3: f32[3] = select(%d, %2, 0.0)
  %4: f32[3] = select(%c, 0.0, %2)
  %5: f32[3] = add(%x, -0.0)
  return a=%1, b=%3, c=%4, d=%5
}""",
    "whole numbers": """
graph g(%x: i32[B,3] input, %y: i32[B,3] input, %c: i32[3] input) {
  %0: i32[B,3] = mul(%x, %c)
  %1: i32[B,3] = mul(%0, 2)
  %2: i32[B,3] = add(%x, %c)
  %3: i32[B,3] = sub(%2, 2)
  %4: i32[B,3] = neg(%y)
  %5: i32[B,3] = add(%x, %4)
  %6: i32[B,3] = max(%x, 0)
  %7: i32[B,3] = min(%6, 5)
  %8: i32[B,3] = add(%y, %y)
  %9: i32[3] = sum(%4, axes=[0], keepdims=false)
  return a=%1, b=%3, c=%5, d=%7, e=%8, f=%9
}""",
    "a row and a column are together as large as the matrix": """
graph g(%x: f32[B,3] input, %r: f32[B,1] input, %c: f32[3] input) {
  %0: f32[B,3] = mul(%x, %r)
  %1: f32[B,3] = mul(%0, %c)
  %2: f32[B,3] = add(%x, %c)
  %3: f32[B,3] = sub(%2, %r)
  return a=%1, b=%3
}""",
    "log_softmax keeps its digits": """
graph g(%x: f32[B,3] input) {
  %0: f32[B,1] = reduce_max(%x, axes=[1], keepdims=true)
  %1: f32[B,3] = sub(%x, %0)
  %2: f32[B,3] = exp(%1)
  %3: f32[B,1] = sum(%2, axes=[1], keepdims=true)
  %4: f32[B,1] = log(%3)
  %5: f32[B,3] = sub(%1, %4)
  return y=%5
}""",
    "limits that cross": """
graph g(%x: f32[B,3] input) {
  %0: f32[B,3] = max(%x, 1.0)
  %1: f32[B,3] = min(%0, 0.0)
  %2: bool[B,3] = lt(%0, 0.5)
  return a=%1, b=%2
}""",
    "broadcasts that others read": """
graph g(%x: f32[3] input, %w: f32[3,2] param) {
  %0: f32[B,3] = broadcast(%x, shape=[B,3])
  %1: f32[B,2] = matmul(%0, %w)
  %2: f32[3,1] = reshape(%x, shape=[3,1])
  %3: f32[3,2] = mul(%w, %2)
  return a=%0, b=%1, c=%3
}""",
    "slices over parts, concats along different axes": """
graph g(%x: f32[2,3] input, %y: f32[2,3] input) {
  %0: f32[2,6] = concat(%x, %y, axis=1)
  %1: f32[2,2] = slice(%0, start=[0,2], stop=[2,4], step=[1,1])
  %2: f32[4,6] = concat(%0, %0, axis=0)
  return a=%1, b=%2
}""",
    "pads that overlap, or lie apart, or are not of zeros": """
graph g(%x: f32[3] input, %y: f32[3] input) {
  %0: f32[5] = pad(%x, low=[0], high=[2], interior=[], value=0.0)
  %1: f32[5] = pad(%y, low=[2], high=[0], interior=[], value=0.0)
  %2: f32[5] = add(%0, %1)
  %3: f32[7] = pad(%x, low=[0], high=[4], interior=[], value=0.0)
  %4: f32[7] = pad(%y, low=[4], high=[0], interior=[], value=0.0)
  %5: f32[7] = add(%3, %4)
  %6: f32[6] = pad(%x, low=[0], high=[3], interior=[], value=1.0)
  %7: f32[6] = pad(%y, low=[3], high=[0], interior=[], value=1.0)
  %8: f32[6] = add(%6, %7)
  return a=%2, b=%5, c=%8
}""",
    "sums of what varies, of products, and of terms that nobody else sums": """
graph g(%x: f32[B,3] input, %y: f32[B,3] input, %r: f32[B,1] input, %c: f32[3] param) {
  %0: f32[B,3] = mul(%x, %r)
  %1: f32[3] = sum(%0, axes=[0], keepdims=false)
  %2: f32[B,3] = mul(%x, %y)
  %3: f32[3] = sum(%2, axes=[0], keepdims=false)
  %4: f32[B,3] = add(%x, %y)
  %5: f32[3] = sum(%4, axes=[0], keepdims=false)
  %6: f32[B,3] = add(%y, %c)
  %7: f32[B] = sum(%6, axes=[1], keepdims=false)
  %8: f32[B,3] = sub(%x, %r)
  %9: f32[B] = sum(%8, axes=[1], keepdims=false)
  return u=%1, v=%3, w=%5, z=%7, e=%9
}""",
    "what depends on the batch, or on chance": """
graph g(%seed: i64[] counter) {
  %0: f32[] = extent(factor=2, power=1)
  %1: f32[] = random(%seed, 0, shape=[], distribution="uniform", stream=1)
  %2: f32[] = random(%seed, 0, shape=[], distribution="uniform", stream=1)
  return a=%0, b=%1, c=%2
}""",
}


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
    """Before loops are taken apart, so that their bodies are full."""
    once = simplify(merge_common_subexpressions(compiled_model(model).module[graph]))
    verify_graph(once, "simplify")
    assert print_graph(simplify(once)) == print_graph(once)


def test_a_long_chain_takes_one_walk():
    """Every node is looked at once, however long the chain of factors, terms and sums is."""
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
    """The training step when it has been simplified."""
    names = [each.name for each in NUMPY_PIPELINE]
    module = {"train_step": compiled_model(model).module["train_step"]}
    return remove_dead_code(run_pipeline(module, NUMPY_PIPELINE[: names.index("simplify") + 1])["train_step"])
