"""The memory that training takes is as predicted: the five models, and programs that allocate outside of the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.native.compilers import candidates
from tests.bench.memory import CHECKED, MODELS, NATIVE, TOLERANCE, measure
from tests.bench.memory_cases import PROGRAMS

IN_C = [f"{model}{NATIVE}" for model in MODELS] if any(candidates()) else []  # tests/native fails in CI without one
ATTEMPTS = 5  # on a busy machine threads take turns and may reuse one scratch space, so less is measured


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not report a process's memory")
@pytest.mark.parametrize("model", [*MODELS, *PROGRAMS, f"mlp{CHECKED}", *IN_C])
def test_the_prediction(model: str):
    most = 0
    for _ in range(ATTEMPTS):
        found = measure(model, "digits", steps=2)
        most = max(most, found["measured"])
        if found["predicted"] == pytest.approx(most, rel=TOLERANCE):
            return
    pytest.fail(f"predicted {found['predicted']:,}, measured at most {most:,}")
