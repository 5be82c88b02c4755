"""The benchmark script itself: the table shows what was measured."""

from __future__ import annotations

import argparse

import pytest

from tests.bench.peers import common
from tests.bench.steps import COLUMNS, MODELS, Results, comparison, names_among


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


def test_names_are_checked():
    read = names_among(MODELS)
    assert read("cnn,mlp") == ["cnn", "mlp"] and read("") == []
    with pytest.raises(argparse.ArgumentTypeError, match="cmm"):
        read("cnn,cmm")


def test_parent_and_peers_know_the_same_models():
    assert tuple(common.RECIPES) == MODELS == common.MODELS
    assert {model for column in COLUMNS for model in column.models} == set(MODELS)
