"""Text to tree: how expressions group, where statements end, positions of nodes, and messages about errors."""

import re

import pytest

from compiler.diagnostics import Diagnostics, UserError
from compiler.language.parser import parse, parse_expression
from compiler.language.syntax import (
    Argument,
    Binary,
    Boolean,
    Call,
    EllipsisDim,
    If,
    Index,
    ListLiteral,
    Name,
    Number,
    Pipe,
    Program,
    Slice,
    String,
    SyntaxNode,
    Unary,
    children,
)

SAMPLE = """\
import "blocks.nn"

layer Block(filters, init=he_normal)(x: f32[B, H, 2 * W, c], mask: bool[...]) {
  param w: f32[c, filters] = init
  state s = zeros([c])
  if training and not is_none(mask) { y, z = split(x @ w, 2); s = y } else if c > 2 {
    for i in range(3) { y = y + x[i, 1:, ::2] }
  }
  return y
    |> Dense(10)
    |> relu
}

cell GRU(units)(x: f32[B, n]) {
  carry h: f32[B, units] = 0
  h = x * -2.5e-1 ** 2
  return h, scan(cell, x)
}

train Net {
  data = "a.npz"
  optimizer = SGD(lr=0.5)
}
"""


def parsed(text: str) -> Program:
    diagnostics = Diagnostics()
    program = parse(text, "m.nn", diagnostics)
    diagnostics.raise_if_any()
    return program


def errors_of(text: str) -> tuple[Program, list[tuple[str, str | None, str | None]]]:
    """The tree, and for each error its line:column, expected and found."""
    diagnostics = Diagnostics()
    program = parse(text, "m.nn", diagnostics)
    try:
        diagnostics.raise_if_any()
    except UserError as error:
        found = error.diagnostics
        return program, [(f"{d.span.line}:{d.span.column}", d.expected, d.found) for d in found if d.span]
    return program, []


def lisp(node: SyntaxNode) -> str:
    """An expression in prefix form, which shows how it groups."""
    match node:
        case Number(value):
            return repr(value)
        case String(value) | Boolean(value):
            return repr(value)
        case Name(identifier):
            return identifier
        case EllipsisDim():
            return "..."
        case Unary(operator, operand):
            return f"({operator} {lisp(operand)})"
        case Binary(operator, left, right):
            return f"({operator} {lisp(left)} {lisp(right)})"
        case Pipe(value, function):
            return f"(|> {lisp(value)} {lisp(function)})"
        case Argument(keyword, value):
            return f"{keyword}={lisp(value)}" if keyword else lisp(value)
        case Slice(start, stop, step):
            return ":".join(lisp(bound) if bound else "_" for bound in (start, stop, step))
        case ListLiteral() | Call() | Index():
            return f"({type(node).__name__} {' '.join(map(lisp, children(node)))})".replace(" )", ")")
    raise AssertionError(node)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a + b * c", "(+ a (* b c))"),
        ("a - b - c", "(- (- a b) c)"),
        ("a ** b ** c", "(** a (** b c))"),
        ("-a ** b", "(- (** a b))"),
        ("a ** -b ** c", "(** a (- (** b c)))"),
        ("(-a) ** b", "(** (- a) b)"),
        ("-a * b", "(* (- a) b)"),
        ("a - -b", "(- a (- b))"),
        ("--a", "(- (- a))"),
        ("a @ b // c % d / e", "(/ (% (// (@ a b) c) d) e)"),
        ("a < b + 1 and not c == d or e", "(or (and (< a (+ b 1)) (not (== c d))) e)"),
        ("not not a", "(not (not a))"),
        ("a == not b", "(== a (not b))"),
        ("(a < b) == c", "(== (< a b) c)"),
        ("x |> f |> g(2)", "(|> (|> x f) (Call g 2))"),
        ("x + 1 |> f or g", "(|> (+ x 1) (or f g))"),
        ("f(a, b=c)(d)[0]", "(Index (Call (Call f a b=c) d) 0)"),
        ("x[i, 1:n, :, ::2, a:, :b:c]", "(Index x i 1:n:_ _:_:_ _:_:2 a:_:_ _:b:c)"),
        ("f()", "(Call f)"),
        ("[]", "(ListLiteral)"),
        ("[1, [2.5, 1e-3,],]", "(ListLiteral 1 (ListLiteral 2.5 0.001))"),
        ("f(\n  a\n  + b,\n)", "(Call f (+ a b))"),
        ("a +  # why\n  b", "(+ a b)"),
        ("a\n\n  # a stage\n  |> f", "(|> a f)"),
        (r'"q\"b\\n\n\té"', repr('q"b\\n\n\té')),
        ("true or false", "(or True False)"),
        ("scan(cell, optimizer=train)", "(Call scan cell optimizer=train)"),
        ("none", "none"),
        ("007", "7"),
        ("123456789012345678", "123456789012345678"),
    ],
)
def test_expressions_group_by_binding_strength(source: str, expected: str) -> None:
    assert lisp(parse_expression(source, "-", Diagnostics())) == expected


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("a = 1\nb = 2", "a = 1; b = 2;"),
        ("\n\na = 1 # one\n# two\n\nb = 2\n", "a = 1\nb = 2"),
        ("a = f(1,\n\n2)", "a = f(1, 2)"),
        ("a =\n1 +\n2", "a = 1 + 2"),
        ("return x\n  |> f", "return x |> f"),
        ("a,\nb = f(x)", "a, b = f(x)"),
        ("if c { a = 1 }\nelse { a = 2 }", "if c {\na = 1\n} else {\na = 2\n}"),
        ("a = 1\r\nb = 2\r\n", "a = 1\nb = 2\n"),
        ("\ta\t=\t1", "a = 1"),
    ],
)
def test_where_statements_end(left: str, right: str) -> None:
    assert parsed(f"fn f(x) {{{left}}}") == parsed(f"fn f(x) {{\n{right}\n}}")


def test_the_parts_of_a_program() -> None:
    program = parsed("\ufeff" + SAMPLE)
    assert [node.path.value for node in program.imports] == ["blocks.nn"]
    assert [(node.kind, node.name.id, len(node.groups), node.damaged) for node in program.functions] == [
        ("layer", "Block", 2, False),
        ("cell", "GRU", 2, False),
    ]
    assert [(train.model.id, [entry.key.id for entry in train.entries]) for train in program.trains] == [
        ("Net", ["data", "optimizer"])
    ]
    block = program.functions[0]
    (filters, init), (x, mask) = block.groups
    assert filters.type is None and filters.default is None and init.default == Name("he_normal", span=block.span)
    assert x.type and [lisp(dim) for dim in x.type.dims] == ["B", "H", "(* 2 W)", "c"]
    assert mask.type and mask.type.dtype == "bool" and [lisp(dim) for dim in mask.type.dims] == ["..."]
    assert [type(statement).__name__ for statement in block.body] == ["Declare", "Declare", "If", "Return"]
    branch = block.body[2]
    assert isinstance(branch, If) and len(branch.then) == 2
    assert [type(statement).__name__ for statement in branch.otherwise] == ["If"]


def test_an_empty_file_is_an_empty_program() -> None:
    for text in ("", "\n\n", "# only a comment", "\ufeff"):
        program = parsed(text)
        assert (program.imports, program.functions, program.trains) == ((), (), ())


def test_spans_cover_the_text_of_their_nodes() -> None:
    lines = SAMPLE.split("\n")
    pending: list[SyntaxNode] = list(children(parsed(SAMPLE)))
    while pending:
        node = pending.pop()
        span = node.span
        assert (span.line, span.column) < (span.end_line, span.end_column)
        text = "\n".join(lines[span.line - 1 : span.end_line])[span.column - 1 :]
        if span.line == span.end_line:
            text = text[: span.end_column - span.column]
        if isinstance(node, Name):
            assert text == node.id
        elif isinstance(node, Number | String | Binary | Call | Index | ListLiteral | Unary | Pipe):
            assert span.line < span.end_line or parse_expression(text, "-", Diagnostics()) == node
        pending += children(node)


STATEMENT_ERRORS = [
    ("x = f(a, , b)", ["2:10"], "an expression or `)`", "`,`"),
    ("x = (a + b", ["3:1"], "`)`", "`}`"),
    ("x = a + b)", ["2:10"], "end of statement", "`)`"),
    ("x = f(a]", ["2:8"], "`)`, `,` or `=`", "`]`"),
    ("x = f(a b,\n  c=1,\n  d=2)", ["2:9"], "`)`, `,` or `=`", "`b`"),
    ("x = f(a\n  b,\n  c)", ["3:3"], "`)`, `,` or `=`", "`b`"),
    ("x = f(a\ny = g(b)\nreturn y", ["3:1"], "`)`, `,` or `=`", "`y`"),
    ("x = a +\nreturn x", ["3:1"], "an expression", "`return`"),
    ("x = = a; y = 1", ["2:5"], "an expression", "`=`"),
    ("param w: f16[n]", ["2:10"], "f32, f64, i32, i64, u8, bool", "`f16`"),
    ("param w: f32", ["2:13"], "`[`", "end of line"),
    ("state = 3", ["2:7"], "a name", "`=`"),
    ("if x = 3 { y = 1 }", ["2:6"], "`{`", "`=`"),
    ("for x range(3) { y = 1 }", ["2:7"], "`in`", "`range`"),
    ("a < b < c", ["2:7"], "`a < b and b < c`, or parentheses", None),
    ("x[0] = 3", ["2:6"], "end of statement", "`=`"),
    ("x[] = 3", ["2:3"], "an expression or `:`", "`]`"),
    ("x = 'a'", ["2:5"], "a string in double quotes", "`'`"),
    ('x = "a', ["2:5"], 'a closing `"` on the same line', None),
    (r'x = "\q"', ["2:5"], r"one of `\"`, `\\`, `\n`, `\t`", r"`\q`"),
    ("x = 1_000", ["2:5"], "a number such as `1`, `2.5` or `1e-3`", "`1_000`"),
    ("x = 1e999", ["2:5"], "a number below 1.8e308", "`1e999`"),
    ("x = 1234567890123456789", ["2:5"], "at most 18 digits", "19 digits"),
    ("x = naïve", ["2:7"], "letters, digits or `_`", "`ï` (U+00EF)"),
    ("x = 1\n}\ny = 2", ["4:1"], "a declaration", "`y`"),
    ("x = = 1\ny = 2\nz = = 3", ["2:5", "4:5"], "an expression", "`=`"),
]


@pytest.mark.parametrize(("body", "places", "expected", "found"), STATEMENT_ERRORS)
def test_errors_in_statements(body: str, places: list[str], expected: str, found: str | None) -> None:
    program, errors = errors_of(f"fn f(x) {{\n{body}\n}}\nfn last(x) {{ return x }}")
    assert errors == [(place, expected, found) for place in places]
    assert [(node.name.id, node.damaged) for node in program.functions][-1] == ("last", False)
    assert program.functions[0].name.id == "f"


@pytest.mark.parametrize(
    ("text", "place", "expected", "found", "known"),
    [
        ("fn f(x) {\n  return x\n\nfn g(x) { return x }", "2:11", "`}`", "the next declaration", ["f", "g"]),
        ("fn f(x) { return x", "1:19", "`}`", "the end", ["f"]),
        ("layer A(x: f32[n) { return x }", "1:17", "`,` or `]`", "`)`", ["A"]),
        ("layer A\n{ return x }", "1:8", "`(`", "end of line", ["A"]),
        ("fn (x) { return x }", "1:4", "a name", "`(`", []),
        ("leyer A(x) { return x }\nfn g(x) { return x }", "1:1", "a declaration", "`leyer`", ["g"]),
        ("x = 3", "1:1", "a declaration", "`x`", []),
        ("import blocks", "1:8", "a string", "`blocks`", []),
        ("train M {\n  loss\n  batch = 3\n}", "2:7", "`=`", "end of line", ["M"]),
        ("train M {\n  optimizer SGD(lr=1)\n}", "2:13", "`=`", "`SGD`", ["M"]),
    ],
)
def test_errors_in_declarations(text: str, place: str, expected: str, found: str, known: list[str]) -> None:
    program, errors = errors_of(text)
    assert errors == [(place, expected, found)]
    assert [node.name.id for node in program.functions] + [node.model.id for node in program.trains] == known


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("parm w = 0", 'did you mean "param"?'),
        ("retrun x", 'did you mean "return"?'),
        ("elif x { y = 1 }", "write `else if`"),
        ("def f", "functions begin with `fn`, layers with `layer`"),
        ("x(1) = 2", "`=` assigns to names, `==` compares"),
        ("foo bar", None),
    ],
)
def test_hints(line: str, hint: str | None) -> None:
    diagnostics = Diagnostics()
    parse(f"fn f(x) {{\n{line}\n}}", "m.nn", diagnostics)
    with pytest.raises(UserError) as caught:
        diagnostics.raise_if_any()
    (error,) = caught.value.diagnostics
    assert [note.message for note in error.notes] == ([hint] if hint else [])


def test_a_bracket_left_open_is_shown() -> None:
    diagnostics = Diagnostics()
    parse("fn f(x) {\n  y = g(x\n  return y\n}", "m.nn", diagnostics)
    with pytest.raises(UserError, match=re.escape("note: m.nn:2:8: `(` is opened here")):
        diagnostics.raise_if_any()


def test_damage_is_confined_to_statements() -> None:
    program, errors = errors_of("fn f(x, y: f32[n]) {\n a = 1\n b = $\n return a\n}\ntrain M { batch = ; seed = 1 }")
    (function,), (train,) = program.functions, program.trains
    assert len(errors) == 2
    assert function.damaged and train.damaged
    assert [type(statement).__name__ for statement in function.body] == ["Assign", "Return"]
    assert [entry.key.id for entry in train.entries] == ["seed"]
    program, _ = errors_of("fn f(x, y: f32[n]) {\n if = { a = 1 }\n return a\n}")
    assert program.functions[0].body == () and len(program.functions[0].groups[0]) == 2


def test_one_mistake_is_one_error() -> None:
    """Leaving out any token of the sample, or putting a bracket before it, never gives more than one error."""
    words = re.findall(r'\s+|\w+|"[^"]*"|\|>|[^\w\s]', SAMPLE)
    for position, word in enumerate(words):
        for replacement in ("", f"({word}", f"){word}", f"{word} $"):
            broken = "".join([*words[:position], replacement, *words[position + 1 :]])
            assert len(errors_of(broken)[1]) <= 1, broken


def test_the_number_of_errors_is_limited() -> None:
    _, errors = errors_of("fn f(x) {\n" + "y = = 1\n" * 50 + "}\n" + "fn g(x) { return = }\n" * 50)
    assert len(errors) == 21
    assert errors[-1][1:] == (None, None)


@pytest.mark.parametrize("text", ["", "a +", "a b", "f(", "$", "a; b", "a\nb", "fn f(x) { return x }"])
def test_bad_expressions_raise(text: str) -> None:
    with pytest.raises(UserError, match=r"--set x:\d+:\d+: error: "):
        parse_expression(text, "--set x", Diagnostics())
