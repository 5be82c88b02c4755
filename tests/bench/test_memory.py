"""The memory that training takes is as predicted, for each of the five models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.memory import MODELS, TOLERANCE, measure


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell what a process has")
@pytest.mark.parametrize("model", MODELS)
def test_the_prediction(model: str):
    found = measure(model, "digits", steps=2)
    assert found["predicted"] == pytest.approx(found["measured"], rel=TOLERANCE)
