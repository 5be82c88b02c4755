"""Tree to text and back: the printed source means the same, is stable, and has no unnecessary parentheses."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.diagnostics import Diagnostics, Span
from compiler.language.formatter import dump_tree, format_expression, format_program
from compiler.language.parser import parse, parse_expression
from compiler.language.syntax import (
    BINARY_PRECEDENCE,
    Argument,
    Binary,
    Boolean,
    Call,
    Expression,
    Index,
    ListLiteral,
    Name,
    Number,
    Pipe,
    Program,
    Slice,
    String,
    Unary,
)

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = sorted((REPOSITORY / "compiler" / "std").glob("*.nn")) + sorted((REPOSITORY / "models").glob("*.nn"))
HERE = Span("-", 1, 1, 1, 1)


def parsed(text: str) -> Program:
    diagnostics = Diagnostics()
    program = parse(text, "m.nn", diagnostics)
    diagnostics.raise_if_any()
    return program


CANONICAL = """\
import "a.nn"
import "b\\"c.nn"

fn f(x, y=[1, 2], z: f32[] = 0.5) {
  param w: f32[..., 4 * n] = zeros
  state s: i32[n]
  a, b = split(x[0, 1:n, :, ::2, :-1:k], 2, axis=-1)
  if a {
    return a, b
  } else if not b or c == d {
    for i in range(3) {
      append(a, i)
    }
  } else {
    b = -a ** 2
  }
  return b
}

model Long()(image: f32[B, 28, 28, 1]) {
  return image or other
    |> Conv2D(24, 5, init=he_normal)
    |> BatchNorm
    |> relu
    |> MaxPool2D(2)
    |> Dense(10, init=he_normal)
}

train Long {
  data = mnist
}
"""


def test_canonical_source_is_kept() -> None:
    assert format_program(parsed(CANONICAL)) == CANONICAL


def test_spelling_becomes_canonical() -> None:
    text = 'train M{a=(1);\nb = ( x|>f )\n}\nfn f( x : f32[ n,], ){return((x+1)*((2)))}\nimport "a"'
    assert format_program(parsed(text)) == (
        'import "a"\n\nfn f(x: f32[n]) {\n  return (x + 1) * 2\n}\n\ntrain M {\n  a = 1\n  b = x |> f\n}\n'
    )
    assert format_program(parsed("# nothing\n")) == ""


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_our_sources_survive_the_round_trip(path: Path) -> None:
    program = parsed(path.read_text(encoding="utf-8"))
    text = format_program(program)
    again = parsed(text)
    assert again == program
    assert format_program(again) == text


@pytest.mark.parametrize(
    "text",
    [
        "(a + b) * c",
        "a - (b - c)",
        "(a ** b) ** c",
        "a ** b ** c",
        "(-a) ** b",
        "2 ** -x * y",
        "-(a + b)",
        "--a",
        "-(not a)",
        "not (a or b)",
        "(a < b) < c",
        "a == (not b)",
        "(a |> f)(b)[c]",
        "[a |> f][0]",
        "x |> (y |> f)",
        "f(a |> g, b=not c)",
        "(-a)[0]",
        '"a\\n\\t\\\\\\"é"',
        "1e-05 + 1e+300 + 0.1",
    ],
)
def test_parentheses_where_they_are_needed(text: str) -> None:
    assert format_expression(parse_expression(text, "-", Diagnostics())) == text


def trees(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def some(item: st.SearchStrategy) -> st.SearchStrategy:
        return st.lists(item, max_size=2).map(tuple)

    bound = st.none() | inner
    piece = inner | st.builds(Slice, bound, bound, bound, span=st.just(HERE))
    return st.one_of(
        st.builds(Unary, st.sampled_from(["-", "not"]), inner, span=st.just(HERE)),
        st.builds(Binary, st.sampled_from(sorted(set(BINARY_PRECEDENCE) - {"|>"})), inner, inner, span=st.just(HERE)),
        st.builds(Pipe, inner, inner, span=st.just(HERE)),
        st.builds(ListLiteral, some(inner), span=st.just(HERE)),
        st.builds(
            Call, inner, some(st.builds(Argument, st.none() | names, inner, span=st.just(HERE))), span=st.just(HERE)
        ),
        st.builds(Index, inner, st.lists(piece, min_size=1, max_size=3).map(tuple), span=st.just(HERE)),
    )


names = st.sampled_from(["a", "cell", "optimizer", "np", "_x1", "none"])
leaves: st.SearchStrategy[Expression] = st.one_of(
    st.builds(Name, names, span=st.just(HERE)),
    st.builds(Boolean, st.booleans(), span=st.just(HERE)),
    st.builds(Number, st.integers(0, 10**18 - 1) | st.floats(0, allow_infinity=False), span=st.just(HERE)),
    st.builds(String, st.text(st.sampled_from('a"\\\n\té#{'), max_size=5), span=st.just(HERE)),
)


@settings(max_examples=300, deadline=None)
@given(st.recursive(leaves, trees, max_leaves=12))
def test_any_expression_survives_the_round_trip(tree: Expression) -> None:
    assert parse_expression(format_expression(tree), "-", Diagnostics()) == tree


def test_the_tree_is_listed_with_positions() -> None:
    program = parsed("layer A(n)(x: f32[B]) {\n  return x |> f(2, k=-n)\n}\n")
    assert dump_tree(program) == (
        "Program file='m.nn' 1:1\n"
        "  functions: Function kind='layer' damaged=False 1:1\n"
        "    name: Name id='A' 1:7\n"
        "    groups[0]: Parameter 1:9\n"
        "      name: Name id='n' 1:9\n"
        "    groups[1]: Parameter 1:12\n"
        "      name: Name id='x' 1:12\n"
        "      type: TypeExpression dtype='f32' 1:15\n"
        "        dims: Name id='B' 1:19\n"
        "    body: Return 2:3\n"
        "      values: Pipe 2:10\n"
        "        value: Name id='x' 2:10\n"
        "        function: Call 2:15\n"
        "          function: Name id='f' 2:15\n"
        "          arguments: Argument 2:17\n"
        "            value: Number value=2 2:17\n"
        "          arguments: Argument name='k' 2:20\n"
        "            value: Unary operator='-' 2:22\n"
        "              operand: Name id='n' 2:23\n"
    )
