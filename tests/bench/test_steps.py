"""The measuring itself: a watched step computes what the step computes, and the tables say what was measured."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest

from runtime.program import Program
from tests.bench.peers import common
from tests.bench.profiling import UNPLACED, instrument, merged
from tests.bench.steps import COLUMNS, MODELS, Results, comparison, names_among, profile_table
from tests.programs import compiled_model, initialized, run_program, values_for


@pytest.mark.parametrize("model", ["mlp", "bilstm"])
def test_a_watched_step_computes_the_same(model: str):
    compilation, batch = compiled_model(model), 4
    source, rows = instrument(compilation.executable.source, "train_step")
    watched = Program(replace(compilation.executable, source=source), compilation.manifest)
    watched.initialize(0)
    inputs = values_for(compilation.optimized["train_step"], batch)
    expected = run_program(initialized(compilation), "train_step", inputs, batch)
    found = run_program(watched, "train_step", inputs, batch)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    spent = watched.bind("train_step", batch)[0].__globals__["seconds_spent"]
    assert len(spent) == len(rows) and sum(spent) > 0
    lines = {row.line.removesuffix(" (backward)") for row in rows} - {UNPLACED}
    assert len(lines) > 3 and all(f"{model}.nn:" in line for line in lines)
    assert any("matmul" in row.op for row in rows)
    assert sum(row.statements for row in merged(rows)) == len(rows)


def test_the_table_of_a_comparison():
    results = Results()
    for figure in (1.0, 3.0, 2.0):
        results.add("cnn", "nnc", {"milliseconds": figure, "versions": {"nnc": "1"}})
        results.add("cnn", "torch eager", {"milliseconds": 5 * figure, "versions": {"torch": "2"}})
        results.add("cnn", "torch channels_last", {"milliseconds": 4 * figure, "versions": {"torch": "2"}})
        results.add("mlp", "nnc", {"milliseconds": figure, "versions": {"nnc": "1"}})
        results.add("mlp", "torch eager", {"milliseconds": figure / 2, "versions": {"torch": "2"}})
    results.add("cnn", "JAX scan", {"milliseconds": 1.0, "versions": {}})
    results.add("mlp", "JAX scan", {"milliseconds": 4.0, "versions": {}})
    machine = {"cpu": "A processor", "cores": 4, "threads": 2, "python": "3.11.0"}
    titles = ["nnc", "torch eager", "torch channels_last", "JAX scan"]
    head, _, cnn, mlp, _, note = comparison(results, titles, machine, rounds=3)
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["model", *titles, "nnc / best torch", "nnc / best JAX"]
    assert [cell.strip() for cell in cnn.split("|")[1:-1]] == ["cnn", "2", "10", "8", "1", "0.25", "2.00"]
    assert [cell.strip() for cell in mlp.split("|")[1:-1]] == ["mlp", "2", "1", "-", "4", "2.00", "0.50"]
    assert "median of 3 rounds" in note and "A processor, 2 of 4 threads" in note and "torch 2" in note


def test_a_profile_shows_the_dearest_rows_and_sums_up_the_others():
    rows = [
        {"line": f"m.nn:{i}", "op": "add", "layers": ["a", "b", "c"], "statements": 1, "microseconds": 20.0 - i}
        for i in range(20)
    ]
    lines = profile_table("mlp", {"milliseconds": 1.0, "watched": 1.1, "rows": rows}).splitlines()
    assert lines[0].startswith("mlp: 1 ms a step") and "m.nn:0" in lines[4] and "a, b, …" in lines[4]
    assert "5 others" in lines[-1] and "15 " in lines[-1]


def test_names_are_checked():
    read = names_among(MODELS)
    assert read("cnn,mlp") == ["cnn", "mlp"] and read("") == []
    with pytest.raises(argparse.ArgumentTypeError, match="cmm"):
        read("cnn,cmm")


def test_parent_and_peers_know_the_same_models():
    assert tuple(common.RECIPES) == MODELS == common.MODELS
    assert {model for column in COLUMNS for model in column.models} == set(MODELS)
