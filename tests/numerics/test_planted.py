"""NaN planted at each op of the five models: training stops within the step, and the op and its line are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from compiler.numerics.blame import find
from compiler.numerics.runs import run_generated
from runtime.program import LoadedProgram
from runtime.training.checkpoint import load
from tests.numerics.planting import Writing, captured, generated, ops_that_count, writing
from tests.programs import MODELS, compiled_model

EVERY = os.environ.get("NNC_TEST_PLANTED") == "all"  # else one op of each name


@pytest.mark.parametrize("model", MODELS)
def test_planted(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # it would take half of the time
    for number, key in enumerate(ops_that_count(compiled_model(model), EVERY)):
        with writing(Writing(key)) as planted:
            compiled = generated(compiled_model(model))
            folder = tmp_path / str(number)
            capture = captured(compiled, folder)
            assert (capture.epoch, capture.step) == (1, 1), key
            run = run_generated("fused", compiled, capture)
        assert run.found.differing(capture.result) == [], "different bits than in training"
        blame = find(run.trace)
        assert blame is not None and blame.node is planted.nodes[key], key
        program = LoadedProgram(compiled.executable, compiled.manifest)
        assert load(folder / "last.safetensors", program).epoch == 0
        assert all(np.isfinite(view).all() for view in program.variables().values())
