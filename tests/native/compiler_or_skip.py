"""A C compiler for the tests of this folder: without one they are skipped, or fail if NNC_REQUIRE_COMPILER is set, as
in CI."""

from __future__ import annotations

import os

import pytest

from runtime.native.compilers import candidates

if not any(candidates()):
    assert not os.environ.get("NNC_REQUIRE_COMPILER"), "NNC_REQUIRE_COMPILER is set, but there is no C compiler"
    pytest.skip("there is no C compiler", allow_module_level=True)
