"""index-checks, and the intervals of values that it relies on: every value that an op can give is in its interval."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
from compiler.ir.interpreter import interpret
from compiler.ir.op import Op, Sample
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.ops import OPS
from compiler.ops.ranges import RULES, index_limits, intervals, limited
from compiler.passes.index_checks import remove_index_checks
from tests.programs import compile_text

# An index in terms of %x: i32[B] and %u: u8[B], inputs; and the smallest table that it cannot leave.
INSIDE = {
    '%1: i32[B] = cast(%u, dtype="i32"); %0: i32[B] = add(%1, 1)': 257,
    "%0: i32[B] = mod(%x, 7)": 7,
    "%1: i32[B] = max(%x, 0); %0: i32[B] = min(%1, 4)": 5,
    "%1: i32[B] = mod(%x, 7); %0: i32[B] = add(%1, 3)": 10,
    "%1: i32[B] = mod(%x, 7); %0: i32[B] = mul(%1, %1)": 37,
    "%1: i32[B] = mod(%x, 7); %0: i32[B] = sub(6, %1)": 7,
    "%1: i32[B] = cast(%u, dtype=\"i32\"); %0: i32[B] = floor_div(%1, 16)": 16,
    "%1: bool[B] = lt(%x, 3); %0: i32[B] = cast(%1, dtype=\"i32\")": 2,
    "%1: bool[B] = lt(%x, 3); %0: i32[B] = select(%1, 4, 2)": 5,
    "%0: i32[6] = iota(size=6)": 6,
    "%1: i32[B,1] = reshape(%x, shape=[B,1]); %2: i32[B,4] = broadcast(%1, shape=[B,4]); "
    "%0: i32[B] = argmax(%2, axis=1)": 4,
    "%1: i32[B] = mod(%x, 5); %2: f32[B] = cast(%1, dtype=\"f32\"); %3: f32[B] = mul(%2, 0.5); "
    "%0: i32[B] = cast(%3, dtype=\"i32\")": 3,
    "%1: i32[3] = iota(size=3); %2: i32[2] = iota(size=2); %3: i32[2] = add(%2, 5); %0: i32[5] = concat(%1, %3, axis=0)": 7,
    "%1: i32[3] = iota(size=3); %0: i32[] = sum(%1, axes=[0], keepdims=false)": 7,
    "%1: i32[B] = check_index(%x, size=11); %0: i32[B] = mul(%1, 2)": 21,
}  # fmt: skip
NEVER_KNOWN = (
    "%1: i32[B] = mod(%x, 7); %0: i32[B] = mul(%1, 1000000000)",  # overflows
    '%1: f32[B] = cast(%x, dtype="f32"); %2: f32[B] = log(%1); %3: f32[B] = clip(%2, low=0.0, high=3.0); '
    '%0: i32[B] = cast(%3, dtype="i32")',  # NaN
    "%1: i32[B] = check_index(%x, size=11); %0: i32[B] = mod(3, %1)",  # by zero
    "%0: i32[B] = add(%x, 1)",
)


def text_of(index: str, size: int) -> str:
    lines = index.split("; ")
    type = lines[-1].partition(": ")[2].partition(" = ")[0]
    inner = "".join(f"  {line}\n" for line in lines)
    header = "graph g(%x: i32[B] input, %u: u8[B] input) {\n"
    return f"{header}{inner}  %9: {type} = check_index(%0, size={size})\n  return y=%9\n}}"


def checks_left(text: str) -> int:
    module = remove_index_checks(read_module(text))
    assert print_module(remove_index_checks(module)) == print_module(module)
    return sum(node.attributes.get("size") != 11 for node in module["g"].nodes if node.op.name == "check_index")


@pytest.mark.parametrize(("index", "size"), INSIDE.items())
def test_an_index_that_cannot_leave_its_table_is_not_checked(index: str, size: int):
    assert checks_left(text_of(index, size)) == 0
    assert checks_left(text_of(index, size - 1)) == 1


@pytest.mark.parametrize("index", NEVER_KNOWN)
def test_what_is_unknown_is_checked(index: str):
    assert checks_left(text_of(index, 2**31 - 1)) == 1


def test_an_index_that_may_overflow_is_checked():
    """3 * 1,000,000,000 is negative in i32; without overflow the quotient would be 3."""
    index = "%1: i32[B] = mod(%x, 4); %2: i32[B] = mul(%1, 1000000000); %0: i32[B] = floor_div(%2, 1000000000)"
    assert checks_left(text_of(index, 4)) == 1


def test_a_fraction_is_true():
    """0.9 as a bool is true, the index 1; as a whole number it would be 0."""
    index = """%1: i32[B] = mod(%x, 2); %2: f32[B] = cast(%1, dtype="f32"); %3: f32[B] = mul(%2, 0.9)
  %4: bool[B] = cast(%3, dtype="bool"); %0: i32[B] = cast(%4, dtype="i32")""".replace("\n  ", "; ")
    assert checks_left(text_of(index, 1)) == 1
    assert checks_left(text_of(index, 2)) == 0


def test_a_number_is_rounded_to_its_dtype():
    """1000000.1 is 1000000.125 in f32, so the result is 1, not 0.8."""
    index = """%1: i32[1000001] = iota(size=1000001); %2: f32[1000001] = cast(%1, dtype="f32")
  %3: f32[1000001] = sub(%2, 1000000.1); %4: f32[1000001] = mul(%3, -8.0); %5: f32[1000001] = min(%4, 1.0)
  %0: i32[1000001] = cast(%5, dtype="i32")""".replace("\n  ", "; ")
    graph = read_module(text_of(index, 2))["g"]
    low, high = intervals(graph, {})[graph.nodes[3].result]  # type: ignore[misc]
    assert low <= (1000000 - np.float64(np.float32(1000000.1))) * -8 <= high


def test_an_input_that_is_only_a_condition_is_no_index():
    graph = read_module(text_of('%1: bool[B] = cast(%x, dtype="bool"); %0: i32[B] = cast(%1, dtype="i32")', 2))
    assert index_limits(graph) == {}


def test_inputs_are_checked_when_they_are_loaded():
    """Also in the body of a scan, and if another graph has the smaller table; not if only a part of it is an index."""
    text = """
cell Step(x: i32[B]) {{ param t: f32[5, 2] = uniform; carry h: f32[B, 2] = 0; h = h + gather(t, {}); return h }}
model M(word: i32[B, 3], other: i32[B, 3]) {{
  size = 8
  if training {{ size = 4 }}
  return sum(scan(Step, word), axes=[1, 2]) + sum(gather(ones([size]), other{}), axes=1)
}}
fn own(y, target: f32[B]) {{ return mean(square(y - target)) }}
train M {{ loss = own; optimizer = SGD(lr=0.1) }}
"""
    compiled = compile_text(text.format("x", ""))
    assert compiled.manifest.classes == {"word": 5, "other": 4}
    assert "check_index" not in compiled.executable.source
    compiled = compile_text(text.format("x + 1", "[:, 1:]"))
    assert compiled.manifest.classes == {}
    assert compiled.executable.source.count("kernels.check_index(") == 6


def test_floats_are_checked_while_the_program_runs():
    """They may be NaN."""
    graph = read_module("""
graph g(%x: f32[B] input) {
  %0: i32[B] = cast(%x, dtype="i32")
  %1: i32[B] = check_index(%0, size=3)
  return y=%1
}""")
    assert index_limits(graph) == {"x": 3}
    assert print_module(remove_index_checks(graph)) == print_module(graph)


SAMPLES = [pytest.param(OPS[n], s, id=f"{n}-{i}") for n in RULES for i, s in enumerate(OPS[n].samples)]


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_intervals_contain_all_values(op: Op, sample: Sample):
    """Of every op with a rule, for operands in intervals of different widths."""
    generator = np.random.default_rng(crc32(f"{op.name} {sample.operands}".encode()))
    for width in (0, 1, 3, 40):
        graph = Graph("sample")
        builder = Builder(graph)
        operands = [builder.input(f"x{i}", operand.type, "input") for i, operand in enumerate(sample.operands)]
        builder.emit(op.name, operands, sample.make_attributes())
        graph.outputs = {"y": graph.nodes[0].results[0]}
        inputs, given = {}, {}
        for value, operand in zip(operands, sample.operands, strict=True):
            drawn = operand.draw(generator, 2)
            if value.type.dtype != "bool" and drawn.size and op.name not in ("check_index", "gather", "random"):
                low = int(generator.integers(0 if value.type.dtype == "u8" else -20, 20))
                drawn = generator.integers(low, low + width, drawn.shape, endpoint=True).astype(drawn.dtype)
            inputs[value.name] = drawn
            if drawn.size:
                given[value] = (drawn.min().item(), drawn.max().item())
        found = intervals(graph, given)[graph.outputs["y"]]
        with np.errstate(all="ignore"):
            result = interpret(graph, inputs, 2)["y"].astype(np.float32 if graph.outputs["y"].type.is_float else int)
        if found is not None and result.size:
            assert found[0] <= result.min() and result.max() <= found[1], (given, result, found)


def test_limits_are_intervals():
    (graph,) = read_module(text_of("%0: i32[B] = copy(%x)", 5)).values()
    known = limited(graph, {"x": 5})
    assert known[graph.inputs[0]] == (0, 4) and known[graph.inputs[1]] == (0, 255)
