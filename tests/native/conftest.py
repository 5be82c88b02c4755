"""A folder for libraries that all tests share, and a fresh start for tests that change the compiler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.native import library, threads


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def shared_folder(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNC_CACHE", str(libraries))
    monkeypatch.setattr(threads, "chosen", 0)  # commands of other tests may have chosen one


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty folder for libraries, and no compiler found yet; afterwards, compilers are looked for again."""
    monkeypatch.setenv("NNC_CACHE", str(tmp_path / "cache"))
    found = (library.find_compiler, library.templates)
    for each in found:
        each.cache_clear()
    yield monkeypatch
    for each in found:
        each.cache_clear()
