"""Flags of the test suite, and what all tests have in common: they leave the user's cache alone."""

from __future__ import annotations

import os
import signal

import pytest

os.environ["NNC_CACHE"] = "off"
# Shells start what runs in the background deaf to Ctrl-C, and so would be the programs that tests stop with it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the stages print now into the golden files"
    )
