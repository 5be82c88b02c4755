"""The messages for the most common errors in models, as files next to this one.

python -m pytest tests/cli --update-golden      if a change is meant to change them: read the diff
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import nnc

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(path.stem for path in HERE.glob("mistakes/*.nn"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_mistake(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(HERE)
    checked = nnc("check", f"mistakes/{name}.nn")
    assert (checked.code, checked.out) == (2, "")
    golden = HERE / "expected" / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(checked.err)
    assert checked.err == golden.read_text()


@pytest.mark.parametrize("command", ["train", "eval", "summary", "emit"])
def test_all_commands_report_the_same(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(HERE)
    result = nnc(command, "mistakes/several.nn")
    assert (result.code, result.out) == (2, "")
    assert result.err == (HERE / "expected/several.txt").read_text()


@pytest.mark.parametrize("name", PROGRAMS)
def test_form(name: str):
    """Each error has a position, an excerpt with a caret, expected and found; each place is reported once."""
    text = (HERE / "expected" / f"{name}.txt").read_text()
    positions = [line.split(": error: ")[0] for line in text.splitlines() if ": error: " in line]
    assert positions and len(positions) == len(set(positions))
    for block in text.split("mistakes/")[1:]:
        if ": error: " in block.splitlines()[0]:
            assert "^" in block and "  found: " in block
