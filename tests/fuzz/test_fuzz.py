"""Five hundred programs of the fuzzer, its earlier findings, and tests of the fuzzer itself."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from compiler.ir.graph import Graph
from compiler.passes.pipeline import Pass
from compiler.passes.rewriting import rebuild
from tests.fuzz import checking
from tests.fuzz.checking import check_graph
from tests.fuzz.findings import Program, program_of, read_program, reduced
from tests.fuzz.run import check_all
from tests.programs import NUMPY_PIPELINE, read_graph

SEEDS = range(500)
LEAST_VALID = 0.9
REGRESSIONS = sorted(p for p in (Path(__file__).parent / "regressions").iterdir() if p.suffix in (".ir", ".nn"))


def test_five_hundred_programs():
    """Each with one choice of passes for the generated code; the nightly command tries several."""
    outcomes = list(check_all(SEEDS, jobs=min(2, os.cpu_count() or 1), brief=True))
    assert len(outcomes) == len(SEEDS)
    assert not [(seed, outcome) for seed, _, outcome in outcomes if outcome.is_finding]
    buckets = Counter(outcome.bucket for _, _, outcome in outcomes)
    assert buckets["invalid"] <= (1 - LEAST_VALID) * len(SEEDS), buckets
    assert buckets["unstable"] + buckets["nan"] <= 0.02 * len(SEEDS), buckets


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.name)
def test_earlier_findings(path: Path):
    assert read_program(path).check().bucket == "passed"


@pytest.mark.parametrize("seed", [0, 3, 57, 64])
def test_a_program_is_a_function_of_its_seed(seed: int):
    assert program_of(seed) == program_of(seed)
    assert program_of(seed) != program_of(seed + 5)


# A pass with a bug: it drops the lower bound of every clip.


def without_lower_bounds(graph: Graph) -> Graph:
    """The pass with the bug."""

    def rule(builder, node, operands):
        if node.op.name != "clip" or node.attributes["low"] == float("-inf"):
            return None
        return [builder.clip(operands[0], low=float("-inf"), high=node.attributes["high"])]

    return rebuild(graph, rule)


CLIPPED = """
graph fuzzed(%x: f32[2,3] input, %y: f32[2,3] input) {
  %0: f32[2,3] = tanh(%y)
  %1: f32[2,3] = add(%x, %0)
  %2: f32[2,3] = clip(%1, low=-0.5, high=1.5)
  %3: f32[2,3] = mul(%2, %0)
  %4: f32[2] = sum(%3, axes=[1])
  return y0=%3, y1=%4
}"""


def test_a_guilty_pass_is_named_and_the_program_reduced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    guilty = Pass("guilty", without_lower_bounds)
    monkeypatch.setitem(checking.PIPELINES, "numpy", (*NUMPY_PIPELINE[:3], guilty, *NUMPY_PIPELINE[3:]))
    outcome = check_graph(read_graph(CLIPPED), seed=0)
    assert outcome.signature == ("mismatch", "guilty", "")

    program = reduced(Program("graph", 0, CLIPPED), outcome, seconds=20)
    path = tmp_path / "found.ir"
    path.write_text(program.file_text(program.check()))
    assert len(read_graph(program.text).nodes) == 1
    assert read_program(path).check().signature == outcome.signature
