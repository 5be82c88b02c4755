"""Flags of the test suite, and what all tests have in common: they leave the user's cache alone."""

from __future__ import annotations

import os

import pytest

os.environ["NNC_CACHE"] = "off"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the stages print now into the golden files"
    )
