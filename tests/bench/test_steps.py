"""The benchmark script itself: the table shows what was measured."""

from __future__ import annotations

import argparse
import os

import pytest

from tests.bench import peer_processes, steps
from tests.bench.fma_peak import product_operations
from tests.bench.peer_processes import ALLOCATOR_SETTINGS, REMOVED_SETTINGS, PeerFailed, ask, environment
from tests.bench.peers import common
from tests.bench.peers.nnc_steps import compile_model
from tests.bench.steps import COLUMNS, MODELS, NATIVE_TITLE, NUMPY_TITLE, Results, comparison, names_among


def test_the_table_of_a_comparison():
    results = Results()
    for figure in (1.0, 3.0, 2.0):
        results.add("cnn", NUMPY_TITLE, {"milliseconds": figure, "versions": {"nnc": "1"}})
        results.add("cnn", "torch eager", {"milliseconds": 5 * figure, "versions": {"torch": "2"}})
        results.add("cnn", "torch channels_last", {"milliseconds": 4 * figure, "versions": {"torch": "2"}})
        results.add("mlp", NUMPY_TITLE, {"milliseconds": figure, "versions": {"nnc": "1"}})
        results.add("mlp", "torch eager", {"milliseconds": figure / 2, "versions": {"torch": "2"}})
    results.add("cnn", "JAX scan", {"milliseconds": 1.0, "versions": {}})
    results.add("mlp", "JAX scan", {"milliseconds": 4.0, "versions": {}})
    machine = {"cpu": "A processor", "cores": 4, "threads": 2, "python": "3.11.0"}
    titles = [NUMPY_TITLE, "torch eager", "torch channels_last", "JAX scan"]
    head, _, cnn, mlp, _, *_, note = comparison(results, titles, machine, rounds=3)
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [
        "model",
        *titles,
        "NumPy / best torch",
        "NumPy / best JAX",
    ]
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


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.split("|")[1:-1]]


def test_speeds_name_the_fastest_peer_the_share_of_the_peak_and_what_failed():
    results = Results(peaks=[90.0, 100.0], operations={"cnn": 500_000_000, "mlp": 200_000_000})
    for model, numpy, native, eager, last in (("cnn", 20.0, 10.0, 30.0, 25.0), ("mlp", 4.0, 2.0, 3.2, 6.4)):
        figures = {NUMPY_TITLE: numpy, NATIVE_TITLE: native, "torch eager": eager, "JAX jit": last}
        for title, figure in figures.items():
            results.add(model, title, {"milliseconds": figure, "versions": {}})
    results.failed["cnn", "torch compile"] = "Traceback\nRuntimeError: no compiler"
    machine = {"cpu": "A processor", "cores": 4, "threads": 2, "python": "3.11.0"}
    titles = [NUMPY_TITLE, NATIVE_TITLE, "torch eager", "torch compile", "JAX jit"]
    lines = comparison(results, titles, machine, rounds=1)
    assert cells(lines[2])[4] == "-"
    head, _, cnn, mlp, mean, _, peak, failed = lines[5:-1]
    assert cells(head)[2::2] == [f"{NUMPY_TITLE}: times as fast", f"{NATIVE_TITLE}: times as fast"]
    assert cells(cnn) == ["cnn", "JAX jit 25", "1.25", "0.25", "2.50", "0.50"]
    assert cells(mlp) == ["mlp", "torch eager 3.2", "0.80", "0.50", "1.60", "1.00"]
    assert cells(mean) == ["geometric mean", "", "1.00", "", "2.00", ""]
    assert "100 GFLOP/s" in peak and failed == "cnn, torch compile: failed: RuntimeError: no compiler"


def test_peers_without_results_leave_no_ratio():
    results = Results()
    results.add("mlp", NUMPY_TITLE, {"milliseconds": 1.0, "versions": {}})
    machine = {"cpu": "A processor", "cores": 4, "threads": 2, "python": "3.11.0"}
    lines = comparison(results, [NUMPY_TITLE, "torch eager"], machine, rounds=1)
    assert cells(lines[2]) == ["mlp", "1", "-", "-"] and cells(lines[6]) == ["mlp", "-", "-", "-"]


def test_all_processes_have_the_same_settings(monkeypatch: pytest.MonkeyPatch):
    for name in REMOVED_SETTINGS:
        monkeypatch.setenv(name, "Haswell")
    settings = environment(1)
    assert not settings.keys() & set(REMOVED_SETTINGS) and settings.items() >= ALLOCATOR_SETTINGS.items()
    assert settings["OMP_NUM_THREADS"] == settings["NNC_THREADS"] == "1"
    assert "multi_thread_eigen=false" in settings["XLA_FLAGS"] and "XLA_FLAGS" not in environment(2).keys() - os.environ


def test_a_peer_that_fails_is_named():
    with pytest.raises(PeerFailed, match="no_such_peer"):
        ask("no_such_peer", 1)


def test_native_code_is_left_out_where_the_target_cannot_run(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(peer_processes.TARGETS, "c", "compiler.targets.no_such_target")
    monkeypatch.setattr(peer_processes, "find_spec", lambda name: None)
    assert not peer_processes.has_native() and "skipped" in capsys.readouterr().err


def test_what_is_not_nnc_on_numpy_may_fail(monkeypatch: pytest.MonkeyPatch):
    def fail(*words: str) -> None:
        raise PeerFailed("no compiler")

    monkeypatch.setattr(steps, "ask", fail)
    numpy, *others = COLUMNS
    results = Results()
    for column in others:
        steps.measure(results, "mlp", column, threads=1)
    assert results.failed == {("mlp", column.title): "no compiler" for column in others}
    with pytest.raises(SystemExit, match="no compiler"):
        steps.measure(results, "mlp", numpy, threads=1)


def test_the_operations_of_a_step_are_those_of_its_products():
    """softmax: the product and the gradient of its weights, 128 x 784 x 10 multiplications and additions each."""
    assert product_operations(compile_model("softmax"), 128) == 2 * 2 * 128 * 784 * 10
