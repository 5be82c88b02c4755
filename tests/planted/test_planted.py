"""Proof that the tests find bugs: with each planted bug an ordinary test fails, and without it that test passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import pytest

from tests.planted.bugs import BUGS, Bug, table
from tests.planted.planting import ROOT, changed_text
from tests.runtime.test_trainer import uninterrupted  # noqa: F401 a fixture of one of the tests

Modules = dict[str, dict[str, pytest.Function]]  # by file, its tests by the last part of their ids


@pytest.fixture(scope="module")
def collected() -> Modules:
    return {}


@pytest.fixture
def check(bug: Bug, collected: Modules, request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """The test that finds a bug, callable any number of times: the function with the parameters of its id."""
    file, _, name = bug.check.partition("::")
    if file not in collected:
        module = pytest.Module.from_parent(request.session, path=ROOT / file)
        collected[file] = {item.name: item for item in module.collect() if isinstance(item, pytest.Function)}
    test = collected[file][name]
    with mock.patch.dict(test.obj.__globals__, bug.smaller):
        yield partial(call, test, request)


def call(test: pytest.Function, request: pytest.FixtureRequest) -> None:
    """Calls a test, with new fixtures where a second call could not use those of the first."""
    given: dict[str, Any] = dict(test.callspec.params) if hasattr(test, "callspec") else {}
    with pytest.MonkeyPatch.context() as patch:
        fresh = {"monkeypatch": lambda: patch, "tmp_path": lambda: new_folder(request)}
        for name in inspect.signature(test.obj).parameters:
            if name not in given:
                given[name] = fresh[name]() if name in fresh else request.getfixturevalue(name)
        test.obj(**given)


def new_folder(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("tmp_path_factory").mktemp("check")


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_an_ordinary_test_notices(bug: Bug, check: Callable[[], None]):
    check()
    with bug.planted(), pytest.raises(Exception, match=bug.says):
        check()


def test_there_are_at_least_thirty():
    assert len(BUGS) >= 30


def test_a_bug_that_cannot_be_planted_is_noticed():
    with pytest.raises(AssertionError, match="has the text that this bug replaces 0 times: 'no such text'"):
        changed_text("compiler/planning/memory.py", {"no such text": ""})
    nothing = Bug(
        "nothing",
        "only a comment changes",
        "compiler/planning/schedule.py",
        {"Nodes that may": "Nodes that can"},
        "",
        "",
    )
    with pytest.raises(AssertionError, match=r"no code of compiler/planning/schedule\.py"), nothing.planted():
        pass


def test_the_document_shows_the_table():
    assert table() in (ROOT / "docs/testing.md").read_text(), "print it with python -m tests.planted.bugs"
