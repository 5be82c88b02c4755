"""The report on a memory plan: its figures are those of the plan, and every tensor has a reason for its place."""

from __future__ import annotations

import re

import pytest

from compiler.ir.graph import VARIABLES
from compiler.planning.memory import Plan, plan_graph
from compiler.reports.plan_report import COLUMNS, ROWS, Explanation, format_report
from compiler.targets.numpy.target import PLACEMENT
from tests.programs import MODELS, TRAINED_GRAPHS, compiled_model, read_graph

STEP = """
graph train_step(%x: f32[B,4] input, %w: f32[4] param, %v: f32[4] state) {
  %0: f32[B,4] = mul(%x, %w)  // m.nn:2:3 dense_1
  %1: f32[B,4] = exp(%0)  // m.nn:3:3 dense_1
  %2: f32[B,4] = max(%0, %1)  // m.nn:4:3 dense_1
  %3: f32[4,B] = transpose(%2, permutation=[1,0])
  %4: f32[4] = sum(%3, axes=[1], keepdims=false)
  %5: f32[4] = sub(%w, %4)
  %6: f32[4] = mul(%v, 0.9)
  return w=%5, v=%6
}"""
SCAN = """
graph g(%h: f32[2] input, %x: f32[5,2] input) {
  %0: f32[2], %1: f32[5,2] = scan(%h, %x, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = add(%h, %x)
    %1: f32[2] = exp(%0)
    return y0=%0, y1=%1
  })
  return a=%0, b=%1
}"""  # noqa: E501


def explained(text: str, batch: int = 2, base: int = 0, **placed: int) -> Explanation:
    return Explanation(plan_graph(read_graph(text), batch, base, placed, PLACEMENT))


def plan_of(model: str, name: str) -> Plan:
    return next(plan for plan in compiled_model(model).plans if plan.graph.name == name)


def reasons(explanation: Explanation) -> dict[str, str]:
    """Why each tensor is where it is, by its name."""
    found = (re.fullmatch(r" *(?:[\d,]+ +[\d,]+ +\S+ +)?(%\S+): \S+: (.*?)(?:  //.*)?", line) for line in
             list(explanation.buffers())[1:])  # fmt: skip
    return {match[1]: match[2] for match in found if match}


def test_reasons():
    found = reasons(explained(STEP, base=128, w=0, v=64))
    assert found["%w"] == "variable, fixed offset"
    assert found["%5"] == "new value, in place of %w" and found["%6"] == "new value, in place of %v"
    assert found["%x"].startswith("input, filled before the graph runs; ")
    assert found["%0"].startswith("own buffer: the bytes of %x are needed until node ")
    assert found["%1"].startswith("own buffer: the bytes of %0 are needed until node 5; live at the same time as ")
    assert found["%2"] == "in place of %0, which is not read again"
    assert found["%3"] == "view of %2"
    assert re.match("own buffer: no operand has its type; reuses bytes of %1, free after node 3", found["%4"])


def test_reasons_in_scans():
    found = reasons(explained(SCAN))
    assert found["%0.h"] == "carry, in place of %0"
    assert found["%0.x"] == "step of %x"
    assert found["%0.1"] == "step of the stack %1"
    assert found["%0.0"] == "new value, in place of %0"


def test_peak_and_lines_of_the_model():
    text = "\n".join([*explained(STEP, base=128, w=0, v=64).peak_tensors()])
    assert text.startswith("at the peak, ") and re.search(r"%0: f32\[B,4\]  // m.nn:2:3 dense_1", text)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", TRAINED_GRAPHS)
def test_figures_are_those_of_the_plan(model: str, name: str):
    plan = plan_of(model, name)
    explanation = Explanation(plan)
    assert max(explanation.live) == explanation.live[explanation.peak] == plan.lower_bound
    first = next(explanation.peak_tensors())
    assert first.startswith(f"at the peak, {plan.lower_bound:,} bytes in ")
    found = reasons(explanation)
    for value in plan.owner:
        name = explanation.names[value]
        assert name.startswith("scratch of ") or found[name], name
    assert sum(reason.startswith("variable") for reason in found.values()) == len(plan.graph.of_kind(*VARIABLES))


def test_chart():
    lines = list(Explanation(plan_of("cnn", "train_step")).chart())
    rows = [line.partition("│")[2] for line in lines[:ROWS]]
    assert all(len(row) <= COLUMNS and set(row) <= {"█", " "} for row in rows)
    assert rows[0].strip() and rows[-1].count("█") == COLUMNS
    above = len(lines[-1]) - len(lines[-1].lstrip()) - 17
    assert rows[0][above] == "█" and "^ peak at node " in lines[-1] and "// " in lines[-1]


def test_chart_of_nothing():
    explanation = explained("graph g() {\n  return\n}")
    assert len(list(explanation.chart())) == ROWS + 2
    assert next(explanation.peak_tensors()).startswith("at the peak, 0 bytes in 0 tensors")


def test_table_and_arena():
    plans = {batch: [plan_graph(read_graph(STEP), batch, 128, {"w": 0, "v": 64}, PLACEMENT)] for batch in (1, 100)}
    head, one, hundred, *arenas = format_report(plans).split("\n\n")[0].splitlines()
    assert head.split("  ")[0] == "graph" and one.split()[:2] == ["train_step", "1"]
    naive, planned, bound, ratio = hundred.split()[2:]
    assert int(naive.replace(",", "")) == plans[100][0].naive and int(bound.replace(",", "")) <= int(
        planned.replace(",", "")
    )
    assert re.fullmatch(r"[1-9]\.\d{3}", ratio)
    assert (
        arenas[1]
        == f"arena at batch 100: {plans[100][0].size:,} bytes, 128 of them variables; the graphs share the rest"
    )
