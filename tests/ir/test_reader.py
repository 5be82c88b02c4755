"""Invalid IR text of any kind: one error with its place, what was expected and what was found."""

from __future__ import annotations

import random
import re
import time

import pytest

from compiler.diagnostics import UserError
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.printer import print_module
from compiler.ir.reader import DEEPEST_NESTING, read_module
from compiler.ops import OPS
from compiler.reports.stages import show_stage, stages_of_module
from tests.programs import MODELS, NUMPY_PIPELINE, compiled_model

LONGEST_TIME = 5.0  # seconds
MUTATIONS_IN_A_TEST = 1000
LONGEST_COMPILED = 5000  # characters


def graph_of(*lines: str, inputs: str = "%x: f32[2] input") -> str:
    return "\n".join([f"graph g({inputs}) {{", *lines, "}"])


def returning(line: str, inputs: str = "%x: f32[2] input") -> str:
    """A graph of one node."""
    return graph_of(line, "return y=%0", inputs=inputs)


BODY = "graph body(%h: f32[2] carry, %v: f32[2] sequence) {\n%0: f32[2] = add(%h, %v)\nreturn y0=%0\n}"
# text -> the place of the error, and parts of its message
MISTAKES = {
    returning("%0: f32[2] = frobnicate(%x)"): ("2:14", "unknown op frobnicate", f"one of the {len(OPS)} ops"),
    returning("%0: f32[2] = matmull(%x)"): ("2:14", 'unknown op matmull; did you mean "matmul"?'),
    returning("%0: f32[3] = exp(%x)"): ("2:5", "exp has a different type", "expected: f32[2]", "found: f32[3]"),
    returning("%0: f32[2], %1: f32[2] = exp(%x)"): ("2:26", "a different number of results", "found: 2 results"),
    returning("%0: f32[2] = exp(%z)"): ("2:18", "%z is not defined before this line"),
    returning("%0: f32[2] = exp(%weigth)", inputs="%weight: f32[2] param"): ("2:18", 'did you mean "%weight"?'),
    returning("%0: f32[2] = add(%x, true)"): ("2:14", "add: the operands differ in dtype", "found: f32[2] and bool[]"),
    returning("%0: f32[2] = exp(%x, %x)"): ("2:14", "exp: wrong number of operands", "expected: 1", "found: 2"),
    returning("%0: f32[] = sum(%x, axes=[1])"): ("2:13", "sum: an axis is out of range", "expected: axis 0"),
    returning("%0: f32[] = sum(%x, axis=[0])"): ("2:13", "sum: sum has no attribute axis"),
    returning("%0: f32[] = sum(%x, axes=[0], axes=[0])"): ("2:31", "a second attribute axes"),
    returning("%0: f32[] = sum(%x, axes=[0], keepdims=2)"): ("2:13", "sum: keepdims is not valid"),
    returning("%0: f32[2] = exp(%x"): ("3:1", "syntax error", "expected: `,` or `)`", "found: `return`"),
    returning("%0: f32[2] = exp(%x %x)"): ("2:21", "expected: `,` or `)`", "found: `%x`"),
    returning("%0: f33[2] = exp(%x)"): ("2:5", "syntax error", "expected: a type such as f32[B,3]"),
    returning("%0: f32[2 = exp(%x)"): ("2:5", "syntax error", "found: `f32`"),
    returning("%0: f32[C] = exp(%x)"): ("2:5", "this is not a type"),
    returning("%0: f32[-1] = exp(%x)"): ("2:5", "this is not a type"),
    returning("%0: f32[9999999999] = exp(%x)"): ("2:5", "a dimension is out of range"),
    returning(f"%0: f32[{'9' * 5000}] = exp(%x)"): ("2:5", "the number is too long"),
    returning(f"%0: f32[2] = mul(%x, {'9' * 5000})"): ("2:22", "the number is too long"),
    returning("%0: f32[2] = mul(%x, 1e999)"): ("2:22", "the number is too large"),
    returning("%0: f32[2] = mul(%x, 1e300)"): ("2:22", "the number does not fit the dtype"),
    returning("%0: f32[2] = mul(%x, 300:u8)"): ("2:22", "the number does not fit the dtype", "a value of u8"),
    returning("%0: f32[2] = mul(%x, 3:f16)"): ("2:24", "unknown dtype f16"),
    returning("%0: f32[2] = mul(%x, [3])"): ("2:22", "this cannot be an operand"),
    returning('%0: f32[2] = mul(%x, "3")'): ("2:22", "this cannot be an operand"),
    returning('%0: f32[2] = random(1:i64, 1, shape=[2], distribution="\\q", stream=1)'): ("2:55", "not a string"),
    returning("%0: f32[2] = random(1:i64, 1, shape=[2], distribution=uniform, stream=1)"): ("2:55", "found: `uniform`"),
    returning("%x: f32[2] = exp(%x)"): ("2:1", "%x is defined twice", "note: t.ir:1:9: the first is here"),
    returning("%0: f32[2] = exp(%x)", inputs="%x: f32[2] input, %x: f32[2] input"): ("1:27", "%x is defined twice"),
    returning("%0: f32[2] = exp(%x)", inputs="%0: f32[2] input"): ("1:9", "this cannot be the name of an input"),
    returning("%0: f32[2] = exp(%x)", inputs="%x: f32[2] inptu"): ("1:20", 'inptu; did you mean "input"?'),
    returning("%0: f32[B] = exp(%x)", inputs="%x: f32[B] param"): ("1:9", "a variable depends on the batch"),
    graph_of("return y=%x, y=%x"): ("2:14", "a second output named y"),
    graph_of("return 5=%x"): ("2:8", "expected: a name"),
    graph_of("?"): ("2:1", "expected: `return`", "found: `?`"),
    graph_of("return y=%x").removesuffix("\n}"): ("2:12", "found: the end of the text"),
    graph_of("return y=%x") * 2: ("3:8", "a second graph named g"),
    "graph a.b() {\nreturn\n}": ("1:7", "this cannot be the name of a graph"),
    "grahp g() {\nreturn\n}": ("1:1", "expected: `graph`"),
    "\x00": ("1:1", "syntax error"),
    "graph g(%é: f32[] input) {\nreturn\n}": ("1:9", "syntax error"),
    returning("%0: f32[2] = scan(%x, %x, carries=1, sequences=1, body=0)"): ("2:14", "scan: the body is not valid"),
    returning(f"%0: f32[2] = scan(%x, %x, carries=1, sequences=1, body={BODY})"): ("2:14", "a different type for v"),
    returning(f"%0: f32[2] = fused(%x, %x, body={BODY.replace('%h, ', '%x, ')})"): ("3:18", "%x is not defined"),
    returning("%0: f32[2] = exp(" + "[" * 5000): ("2:49", "nested too deeply"),
    returning("%0: f32[2] = fused(body=graph b() {" * 5000): ("2:1075", "nested too deeply"),
}  # fmt: skip
TWO_GRAPHS = {
    ("%w: f32[2] param", "%w: f32[3] param", "y=%w"): (
        "4:9",
        "has a different type in another graph",
        "f32[2] is declared",
    ),
    ("%w: f32[2] param", "%v: f32[3] input", "w=%v"): ("5:8", "the new value of the variable w has a different type"),
}


def error_of(text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_module(text, "t.ir")
    return str(caught.value)


@pytest.mark.parametrize(("text", "expected"), MISTAKES.items(), ids=lambda value: str(value)[:40])
def test_mistake(text: str, expected: tuple[str, ...]):
    place, *fragments = expected
    message = error_of(text)
    assert message.startswith(f"t.ir:{place}: error: "), message
    assert len(message) < 2000 and "\n   | " in message.replace("\n    | ", "\n   | ")
    for fragment in fragments:
        assert fragment in message, message


@pytest.mark.parametrize(("graphs", "expected"), TWO_GRAPHS.items(), ids=lambda value: str(value)[:40])
def test_graphs_agree_about_variables(graphs: tuple[str, str, str], expected: tuple[str, ...]):
    first, second, output = graphs
    text = f"graph a({first}) {{\n  return\n}}\ngraph b({second}) {{\nreturn {output}\n}}"
    message = error_of(text)
    assert message.startswith(f"t.ir:{expected[0]}: error: "), message
    assert all(fragment in message for fragment in expected[1:]), message


def test_form_of_an_error():
    assert error_of(returning("%0: f32[3] = exp(%x)  // m.nn:1:2 dense_1")) == (
        "t.ir:2:5: error: the result of exp has a different type\n"
        " 2 | %0: f32[3] = exp(%x)  // m.nn:1:2 dense_1\n"
        "   |     ^^^^^^\n"
        "  expected: f32[2]\n"
        "  found: f32[3]"
    )


def test_bodies_may_nest_this_deep():
    body = "graph b(%x: f32[2]) {\n  return y0=%x\n}"
    for _ in range(DEEPEST_NESTING - 1):
        body = f"graph b(%x: f32[2]) {{\n%0: f32[2] = fused(%x, step=0, body={body})\nreturn y0=%0\n}}"
    assert read_module(returning(f"%0: f32[2] = fused(%x, step=0, body={body})"))["g"].nodes


@pytest.mark.parametrize(
    "text", ["(" * 200_000, "graph " * 50_000, "%" * 200_000, "[[" * 100_000, "// x:1:1 " * 20_000]
)
def test_long_nonsense_is_refused_quickly(text: str):
    began = time.perf_counter()
    for nonsense in (text, graph_of(text), returning(f"%0: f32[2] = exp({text}")):
        if text.startswith("//") and nonsense is text:
            assert read_module(nonsense) == {}
        else:
            error_of(nonsense)
    assert time.perf_counter() - began < LONGEST_TIME


# Mutations ------------------------------------------------------------------------------------------------------------

WORDS = re.compile(r'%[\w.]+|[A-Za-z_][\w.]*|-?\d+(?:\.\d+)?|"[^"]*"|[^\w\s]|\s+')
ATTRIBUTE = re.compile(r'(?<=[a-z_]=)(?:\[\[[^()]*?\]\]|\[[^\[\]]*\]|-?[\w.*]+|"[^"]*")(?=[,)])')
TYPE = re.compile(r"(?<=: )(?:f32|f64|i32|i64|u8|bool)\[[^\]]*\]")
VOCABULARY = """
%0 %1 %x %x0 %2.w 0 1 2 -1 0.5 1e999 inf nan -inf true false B 2*B 0*B f32[] f32[B] f32[3] i32[] bool[2] u8[B] f32[0]
f64[2,2] [ ] [0] [1,1] [[0,0],[0,0]] ( ) { } , = : // graph body return "uniform" "x" scan fused exp add sum matmul
input param state counter carry sequence constant axes= shape= f32[2147483648] 99999999999999999999999 é \x00 \\ "
"""
VALUES = """
0 1 -1 7 100000000000000000 0.5 -0.0 inf nan true false "x" B 2*B [] [0] [1,1] [1,0] [2,3] [-1] [0.5] [true] ["x"] [B]
[[1]] [[0,0],[0,0]] [B,3] [3,B] [2147483647,2147483647]
"""
TYPES = "f32[] f32[B] f32[3] i32[] bool[2] f32[2,3] f32[B,5,5,2] f32[0] f32[B,B] u8[4] f32[2147483647,4,9]"


def texts() -> list[str]:
    """Graphs of models and of the samples of all ops."""
    found = [
        print_module({name: graph})
        for model in MODELS
        for module in (compiled_model(model).module, compiled_model(model).optimized)
        for name, graph in module.items()
    ]
    for op in OPS.values():
        for sample in op.samples:
            graph = Graph("g")
            builder = Builder(graph)
            operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
            builder.emit(op.name, operands, sample.make_attributes())
            graph.outputs = {f"y{i}": value for i, value in enumerate(graph.nodes[-1].results)}
            found.append(print_module({"g": graph}))
    return found


def mutated(choose: random.Random, text: str) -> str:
    """With words exchanged, attributes and types of another kind, pieces removed or duplicated."""
    kind = choose.choice(["words", "attribute", "type", "cut"])
    if kind == "words":
        words = WORDS.findall(text)
        places = [place for place, word in enumerate(words) if not word.isspace()]
        for _ in range(choose.choice([1, 1, 2, 4])):
            words[choose.choice(places)] = choose.choice([*VOCABULARY.split(), words[choose.choice(places)], ""])
        return "".join(words)
    if kind == "cut":
        start = choose.randrange(len(text))
        stop = start + choose.choice([1, 5, 50])
        return choose.choice([text[:start], text[:start] + text[stop:], text[:stop] + text[start:]])
    found = list((ATTRIBUTE if kind == "attribute" else TYPE).finditer(text))
    if not found:
        return text
    start, stop = choose.choice(found).span()
    return text[:start] + choose.choice((VALUES if kind == "attribute" else TYPES).split()) + text[stop:]


@pytest.mark.parametrize("seed", range(5))
def test_mutated_texts(seed: int):
    """They are read, printed unchanged, and compiled, or refused with an error message."""
    choose = random.Random(seed)
    sources = texts()
    for _ in range(MUTATIONS_IN_A_TEST):
        text = mutated(choose, choose.choice(sources))
        try:
            printed = print_module(read_module(text))
        except UserError as error:
            assert re.match(r"<ir>:\d+:\d+: error: ", str(error)), text
        else:
            assert print_module(read_module(printed)) == printed
            if len(text) < LONGEST_COMPILED:
                compiles(text)


def compiles(text: str) -> None:
    try:
        source = show_stage(stages_of_module(read_module(text), NUMPY_PIPELINE, "t.ir", 3), "source")
    except UserError as error:
        assert "cannot run in tiles" in str(error), text
    else:
        compile(source, "t.py", "exec")
