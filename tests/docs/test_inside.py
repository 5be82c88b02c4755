"""docs/inside.md and docs/gpu.md show what the commands print today."""

from __future__ import annotations

import re

import pytest

from tests.docs.make_inside import BLOCK, DOCUMENTS, ROOT, TABLE, TABLES, block, excerpt

TEXTS = {path.name: path.read_text() for path in DOCUMENTS}
BLOCKS = [
    pytest.param(match, id=f"{name}-{i}-{match['command'].partition(' models')[0].replace(' ', '-')}")
    for name, text in TEXTS.items()
    for i, match in enumerate(BLOCK.finditer(text), 1)
]
LINES = tuple("abcdefgh")


@pytest.mark.parametrize("match", BLOCKS)
def test_a_block_is_what_its_command_prints(match: re.Match[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert match[0] == block(match["lines"].strip(), match["command"]), "run python tests/docs/make_inside.py"


@pytest.mark.parametrize("match", [match for text in TEXTS.values() for match in TABLE.finditer(text)])
def test_a_table_is_what_is_counted(match: re.Match[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert match[0] == match["head"] + TABLES[match["name"]](), "run python tests/docs/make_inside.py"


def test_every_block_is_made_by_a_command():
    assert sum(text.count("```console") for text in TEXTS.values()) == len(BLOCKS)


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("", "abcdefgh"),
        ("1-2", "ab…"),
        ("7-8", "…gh"),
        ("/c/", "…c…"),
        ("/c/ +2", "…cde…"),
        ("/c/ to /e/", "…cd…"),
        ("1-2, /c/ +1, /f/ to /h/", "abcd…fg…"),
    ],
)
def test_excerpts(spec: str, shown: str):
    assert "".join(excerpt(LINES, spec)) == shown


def test_a_pattern_that_matches_nothing():
    with pytest.raises(AssertionError, match="no line has x"):
        list(excerpt(LINES, "/x/"))
