"""Warnings: each has programs that it fires in, at the marks, and near misses without marks."""

from __future__ import annotations

import pytest

from compiler.diagnostics import Diagnostics
from compiler.driver import check_models, load_tree
from tests.elaborate.running import check_warnings, model
from tests.programs import ROOT


@pytest.mark.parametrize("path", sorted([*ROOT.glob("models/*.nn"), *ROOT.glob("examples/*.nn")]), ids=lambda p: p.stem)
def test_shipped_programs_do_not_warn(path):
    diagnostics = Diagnostics()
    check_models(load_tree(path, diagnostics=diagnostics), None, diagnostics)
    assert diagnostics.warning_texts() == ()


# Unused names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        model("§h = Dense(3)(x); return relu(x)"),
        model("§h = relu(x); h = tanh(x); return x"),
        model("§a, §b = split(x, 2); return x"),
        model("if rank(x) == 3 { §y = x }; return x"),
        "layer L(units, §rate=0.5)(x: f32[B, n]) { return x |> Dense(units) }\n" + model("return x |> L(2)"),
        "layer L()(x: f32[B, n]) { param §b: f32[n] = zeros; return relu(x) }\n" + model("return x |> L"),
        "layer L()(x: f32[B, n]) { state §s: f32[n] = zeros; return relu(x) }\n" + model("return x |> L"),
        "fn never_called(x) { §y = 2 * x; return x }\n" + model("return x"),
    ],
)
def test_unused_name(program: str):
    check_warnings(program, "is never used in ")


@pytest.mark.parametrize(
    "program",
    [
        model("h = Dense(3)(x); return h"),
        model("a, b = split(x, 2); return a"),  # one part of two
        model("_h = Dense(3)(x); return x"),
        model("for i in range(3) { x = relu(x) }; return x"),
        "layer Same(momentum=0.9)(x) { return x }\n" + model("return x |> Same"),  # in place of BatchNorm
        "layer L(n)(x: f32[B, n]) { return relu(x) }\n" + model("return x |> L(4)"),  # it checks the shape
        "layer L(n, m=n)(x: f32[B, k]) { return x |> Dense(m) }\n" + model("return x |> L(4)"),
        "layer L()(x: f32[B, n]) { state s: f32[n] = zeros; s = mean(x, axes=0); return x }\n" + model("return x |> L"),
        "cell C(n)(x: f32[B, k]) { carry h: f32[B, n] = 0; h = x @ full([k, n], 1); return x }\n"
        + model("return last(scan(C(2), x))", "x: f32[B, 3, 4]"),
        "optimizer Plain(rate)(p, g, step) { return p - rate * g }\n" + model("return x"),
        "fn of_two(x, y) { return x }\n" + model("return of_two(x, x)"),
    ],
)
def test_used_name(program: str):
    check_warnings(program)
