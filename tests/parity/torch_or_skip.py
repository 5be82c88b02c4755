"""PyTorch for the tests of this folder: without it they are skipped, or fail if NNC_REQUIRE_TORCH is set, as in CI."""

from __future__ import annotations

import os

import pytest

if os.environ.get("NNC_REQUIRE_TORCH"):
    import torch
else:
    torch = pytest.importorskip("torch")

torch.set_num_threads(1)  # its waiting threads would take the cores from NumPy's, and the tests are small
torch.manual_seed(0)
