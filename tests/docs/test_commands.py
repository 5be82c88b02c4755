"""The commands that the developer guide shows under "Looking inside" work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.running import nnc
from tests.programs import ROOT

SECTION = (ROOT / "docs/development.md").read_text().partition("## Looking inside")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^nnc ([^#\n]+?) *(?:#.*)?$", SECTION, re.MULTILINE)


def test_looking_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    assert len(COMMANDS) > 8
    for command in COMMANDS:
        words, _, file = command.partition(" > ")
        result = nnc(*shlex.split(words))
        assert (result.code, result.err) == (0, "") and result.out, command
        if file:
            (tmp_path / file).write_text(result.out)
    assert (tmp_path / "stages/00-tree.txt").exists() and (tmp_path / "stages/01-graph.ir").exists()
