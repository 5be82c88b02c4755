"""The stages of tiny programs, compared with the files in `expected`.

python -m pytest tests/golden --update-golden      after a change that is meant to change them; read the diff
"""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.driver import load_tree, stages_of_program
from compiler.reports.stages import show_stage

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(path.stem for path in HERE.glob("*.nn"))
STAGES = ("tree", "graph", "gradient", "optimized", "plan", "source")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_stage(program: str, stage: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(HERE)
    text = show_stage(stages_of_program(load_tree(f"{program}.nn")), stage)
    golden = HERE / "expected" / f"{program}.{stage}.txt"
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text
