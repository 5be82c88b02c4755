"""CuPy and g++ for the tests of this folder: without them they are skipped, or fail if NNC_REQUIRE_CUPY is set, as in
CI. Neither needs a GPU."""

from __future__ import annotations

import os
import shutil

import pytest

if os.environ.get("NNC_REQUIRE_CUPY"):
    import cupy

    assert shutil.which("g++"), "NNC_REQUIRE_CUPY is set, but there is no g++"
else:
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to compile kernels with", allow_module_level=True)

__all__ = ["cupy"]
