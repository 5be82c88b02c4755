"""`check` and `train` print warnings with their position; they are kept with a compiled program in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM
from tests.cli.running import nnc

UNUSED = "fn unused(x) {\n  twice = 2 * x\n  return x\n}\n"
WARNING = """\
warned.nn:2:3: warning: twice is never used in unused
 2 |   twice = 2 * x
   |   ^^^^^
"""


@pytest.fixture
def warned(place: Path) -> Path:
    (place / "warned.nn").write_text(UNUSED + PROGRAM)
    return place


def test_check(warned: Path):
    result = nnc("check", "warned.nn")
    assert (result.code, result.err) == (0, WARNING)
    assert result.out == nnc("check", "points.nn").out.replace("points.nn", "warned.nn")


def test_strict(warned: Path):
    assert nnc("check", "warned.nn", "--strict").code == 2
    assert nnc("check", "points.nn", "--strict").code == 0


def test_only_errors_are_printed_if_there_are_any(warned: Path):
    (warned / "warned.nn").write_text(UNUSED + PROGRAM.replace("Dense", "Dens"))
    result = nnc("check", "warned.nn")
    assert result.code == 2
    assert "error: unknown layer Dens" in result.err and "warning" not in result.err


def test_train_prints_each_once_from_the_cache_too(warned: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NNC_CACHE", str(warned / "cache"))
    for name, cached in (("first", "miss"), ("second", "hit")):
        result = nnc("train", "warned.nn", "--epochs", "1", "--timings", "--quiet", "--out", name)
        assert (result.code, result.err) == (0, WARNING)
        assert result.out.startswith(f"cache: {cached}")
    assert nnc("train", "--resume", "first", "--epochs", "2").err == ""
    assert nnc("eval", "first").err == ""
