"""The form of errors, and how they are collected."""

import pytest

from compiler.diagnostics import Diagnostic, Diagnostics, Note, Span, UserError, render
from runtime.errors import did_you_mean

SOURCE = "model M(x) {\n\treturn x |> Dens(10)\n}\n"


def test_an_error_in_full() -> None:
    note = Note("W=24 from Conv2D", Span("n.nn", 5, 2, 5, 3))
    error = Diagnostic("unknown name", Span("m.nn", 1, 7, 1, 8), "a layer", "`M`", (note, Note('did you mean "N"?')))
    assert render(error, {"m.nn": SOURCE}) == (
        "m.nn:1:7: error: unknown name\n"
        " 1 | model M(x) {\n"
        "   |       ^\n"
        "  expected: a layer\n"
        "  found: `M`\n"
        "  note: n.nn:5:2: W=24 from Conv2D\n"
        '  note: did you mean "N"?'
    )


@pytest.mark.parametrize(
    ("span", "line", "underline"),
    [
        (Span("m.nn", 2, 14, 2, 18), "    return x |> Dens(10)", "                ^^^^"),
        (Span("m.nn", 2, 1, 2, 2), "    return x |> Dens(10)", "^^^^"),
        (Span("m.nn", 1, 9, 3, 2), "model M(x) {", "        ^^^^"),
        (Span("m.nn", 1, 13, 1, 14), "model M(x) {", "            ^"),
        (Span("m.nn", 3, 2, 3, 2), "}", " ^"),
    ],
    ids=["after a tab", "the tab", "several lines", "end of line", "empty"],
)
def test_the_caret_is_below_its_text(span: Span, line: str, underline: str) -> None:
    _, excerpt, carets = render(Diagnostic("wrong", span), {"m.nn": SOURCE}).split("\n")
    assert excerpt == f" {span.line} | {line}"
    assert carets == f"   | {underline}"


@pytest.mark.parametrize(("column", "width"), [(1, 3), (5_000, 3), (9_998, 2), (1, 9_999)])
def test_long_lines_are_cut_around_the_caret(column: int, width: int) -> None:
    source = "".join(str(position % 10) for position in range(1, 10_000))
    span = Span("m.nn", 1, column, 1, column + width)
    _, excerpt, carets = render(Diagnostic("wrong", span), {"m.nn": source}).split("\n")
    assert len(excerpt) < 180 and len(carets) < 180
    marked = excerpt[carets.index("^") : carets.rindex("^") + 1]
    assert marked and source[column - 1 :].startswith(marked) and len(marked) == min(width, len(marked))


@pytest.mark.parametrize("span", [None, Span("other.nn", 1, 1, 1, 2), Span("m.nn", 99, 1, 99, 2)])
def test_without_source_there_is_no_excerpt(span: Span | None) -> None:
    assert "|" not in render(Diagnostic("wrong", span), {"m.nn": "x = 1"})


def test_nothing_from_a_source_controls_the_terminal() -> None:
    error = Diagnostic("bad\x1b[31m", Span("m\r.nn", 1, 1, 1, 2), "a\n", "\u202e", (Note("\ud800"),))
    text = render(error, {"m\r.nn": "x\x1b]0;title\x07\x9b\r"})
    assert all(line.isprintable() and line.isascii() for line in text.split("\n"))


def test_errors_are_sorted_and_kept_once() -> None:
    diagnostics = Diagnostics()
    diagnostics.raise_if_any()
    for file, line in (("b.nn", 1), ("a.nn", 10), ("a.nn", 9), ("a.nn", 9)):
        diagnostics.error(Span(file, line, 1, line, 2), "wrong")
    diagnostics.error(Span("a.nn", 9, 1, 9, 2), "also wrong")
    diagnostics.error(None, "no position")
    with pytest.raises(UserError) as caught:
        diagnostics.raise_if_any()
    assert [line for line in str(caught.value).split("\n")] == [
        "error: no position",
        "a.nn:9:1: error: wrong",
        "a.nn:9:1: error: also wrong",
        "a.nn:10:1: error: wrong",
        "b.nn:1:1: error: wrong",
    ]


def test_a_plain_error() -> None:
    error = UserError.plain("no such flag", expected="--seed", found="--sede", notes=[Note("see --help")])
    assert str(error) == "error: no such flag\n  expected: --seed\n  found: --sede\n  note: see --help"


@pytest.mark.parametrize(
    ("name", "guess"),
    [("Dens", "Dense"), ("dense", "Dense"), ("CONV2D", "Conv2D"), ("xyz", None), ("", None), ("D" * 5000, None)],
)
def test_did_you_mean(name: str, guess: str | None) -> None:
    assert did_you_mean(name, {"Dense", "Conv2D", "Dropout"}) == (f'did you mean "{guess}"?' if guess else "")
