"""Runs tests with one of the planted bugs: python -m pytest -p tests.planted.plugin --plant NAME tests/targets"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.planted.bugs import BUGS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plant", choices=sorted(BUGS), help="run the tests with this bug in the compiler")


@pytest.fixture(autouse=True, scope="session")
def bug(request: pytest.FixtureRequest) -> Iterator[None]:
    name = request.config.getoption("--plant")
    if name is None:
        yield
        return
    with BUGS[name].planted():
        yield
