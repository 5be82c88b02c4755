"""Options of the test suite and settings for all tests: they leave the user's cache alone."""

from __future__ import annotations

import os
import signal

import pytest

os.environ["NNC_CACHE"] = "off"
# Shells start background jobs with SIGINT ignored, and the programs that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="update the golden files with the current output of the stages"
    )
