"""The documents are correct: their programs compile, their links work, and the references are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compiler.elaborate.library import library
from compiler.elaborate.training import KEYS
from compiler.ops import OPS
from tests.elaborate.running import check_warnings
from tests.programs import ROOT, compile_text

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = [
    pytest.param(match[1], id=f"{path.name}-{i}")
    for path in DOCUMENTS
    for i, match in enumerate(re.finditer(r"^```nn\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_compiles_without_warnings(program: str):
    compile_text(program)
    check_warnings(program)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_library_reference_names_every_declaration():
    text = (ROOT / "docs/standard-library.md").read_text()
    missing = [name for name in library().declarations if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_the_language_reference_names_every_builtin_and_key():
    text = (ROOT / "docs/language.md").read_text()
    missing = [name for name in [*library().builtins, *KEYS] if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_the_ir_reference_names_every_op():
    text = (ROOT / "docs/ir.md").read_text()
    assert not [name for name in OPS if f"`{name}`" not in text]
