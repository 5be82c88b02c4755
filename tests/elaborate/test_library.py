"""The standard library as a whole: even declarations that no other test uses can be parsed."""

from __future__ import annotations

from compiler.elaborate.library import LIBRARY_FOLDER, Library, library
from tests.elaborate.running import mistakes


def test_every_declaration_parses_at_its_line():
    for name, function in library().declarations.items():
        lines = (LIBRARY_FOLDER.parent / function.span.file).read_text("utf-8").split("\n")
        assert lines[function.span.line - 1].startswith(f"{function.kind} {name}"), name
        assert not function.damaged


def test_no_line_of_a_file_is_lost():
    """Every declaration is found: only comments lie between them."""
    heads = [
        line.split("(")[0].split(" ")
        for path in LIBRARY_FOLDER.glob("*.nn")
        for line in path.read_text("utf-8").split("\n")
        if line and line[0] not in "# }" and not line.startswith(" ")
    ]
    assert sorted(head[1] for head in heads) == sorted(library().declarations)


def test_declarations_are_parsed_on_first_use():
    known = Library(LIBRARY_FOLDER)
    assert "Dense" in known and not known.parsed
    assert known["Dense"] is known["Dense"]
    assert set(known.parsed) == {"Dense"}


def test_a_mistake_in_a_call_names_the_line_of_the_library():
    assert "std/checks.nn:7:12" in str(mistakes("model M(x: f32[B, 4]) { return x |> Dense(0) }"))
