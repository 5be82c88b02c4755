"""The models beyond the five recipes train, and the script that measures them shows what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.beyond import COMPILED, EAGER, NATIVE_TITLE, NUMPY_TITLE, columns_of, comparison
from tests.bench.peers.beyond_data import BEYOND, FOLDER
from tests.bench.peers.beyond_nnc import compile_model, train_step
from tests.bench.steps import Results
from tests.programs import initialized

TARGETS = [(NATIVE_TITLE, "c"), (NUMPY_TITLE, "numpy")]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.split("|")[1:-1]]


@pytest.mark.parametrize("model", BEYOND)
def test_the_loss_goes_down(model: str):
    """In three rounds over all of its synthetic data."""
    step = train_step(initialized(compile_model(model, 4, "numpy")), model, 4)
    with np.errstate(all="ignore"):
        losses = np.array([step() for _ in range(12)])
    assert np.isfinite(losses).all() and losses[-4:].mean() < losses[:4].mean()


def test_every_program_with_a_model_is_measured():
    programs = {path.stem for path in FOLDER.glob("*.nn") if "\ntrain " in path.read_text("utf-8")}
    assert programs == BEYOND.keys()


def test_the_columns_of_a_model():
    titles = [column.title for column in columns_of("unet", TARGETS, ["default"])]
    plain = [NATIVE_TITLE, NUMPY_TITLE, EAGER, f"{COMPILED} default"]
    assert titles == [*plain, f"{EAGER} channels_last", f"{COMPILED} default channels_last"]
    assert [column.title for column in columns_of("gru_784", TARGETS, None)] == [NATIVE_TITLE, NUMPY_TITLE]
    assert [column.title for column in columns_of("embedding_mlp", [], [])] == [EAGER, f"{EAGER} sparse"]


def test_the_table_takes_the_fastest_layout_and_mode():
    results = Results()
    figures = {NUMPY_TITLE: 8.0, EAGER: 6.0, f"{EAGER} channels_last": 4.0, f"{COMPILED} default": 5.0}
    for row, native in (("unet, 8", 2.0), ("unet, 32", 8.0)):
        for title, figure in {**figures, NATIVE_TITLE: native}.items():
            results.add(row, title, {"milliseconds": figure, "versions": {"torch": "2"}})
    results.failed["unet, 8", f"{COMPILED} default channels_last"] = "RuntimeError: no compiler"
    head, _, small, large, mean, _, failed, note = comparison(results, 1, "A processor")
    assert cells(head)[:5] == ["model, batch", NATIVE_TITLE, NUMPY_TITLE, EAGER, COMPILED]
    assert cells(small) == ["unet, 8", "2", "8", "4", "5", "2.00", "0.50"]
    assert cells(large) == ["unet, 32", "8", "8", "4", "5", "0.50", "0.50"]
    assert cells(mean)[-2:] == ["1.00", "0.50"]
    assert failed.startswith("unet, 8, torch compile default channels_last: failed") and "torch 2" in note
