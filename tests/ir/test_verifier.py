"""The verifier detects every way a pass could break a graph, and shows where."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compiler.ir.graph import Graph, Value
from compiler.ir.types import TensorType
from compiler.ir.verifier import VerificationError, verify_graph
from compiler.passes.pipeline import Pass, run_pass
from tests.programs import read_graph

TEXT = """
graph g(%x: f32[2,3] input, %w: f32[3,4] param) {
  %0: f32[2,4] = matmul(%x, %w)
  %1: f32[2,4] = exp(%0)
  %2: f32[4] = sum(%1, axes=[0], keepdims=false)
  return y=%2
}"""


def swap_nodes(graph: Graph) -> None:
    graph.nodes[0], graph.nodes[1] = graph.nodes[1], graph.nodes[0]


def wrong_type(graph: Graph) -> None:
    graph.nodes[1].result.type = TensorType("f32", (2, 5))


def foreign_operand(graph: Graph) -> None:
    graph.nodes[1].operands[0] = Value(TensorType("f32", (2, 4)))


def missing_node(graph: Graph) -> None:
    del graph.nodes[2]


def operands_that_do_not_fit(graph: Graph) -> None:
    graph.nodes[0].operands.reverse()


def twice(graph: Graph) -> None:
    graph.nodes.append(graph.nodes[0])


def same_names(graph: Graph) -> None:
    graph.inputs[1].name = "x"


def bad_attribute(graph: Graph) -> None:
    graph.nodes[2].attributes["axes"] = (7,)


BREAKS = [
    swap_nodes,
    wrong_type,
    foreign_operand,
    missing_node,
    operands_that_do_not_fit,
    twice,
    same_names,
    bad_attribute,
]


def test_a_valid_graph_passes():
    verify_graph(read_graph(TEXT), "reading")


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_damage_is_noticed(damage: Callable[[Graph], None]):
    graph = read_graph(TEXT)
    damage(graph)
    with pytest.raises(VerificationError, match="after a pass: graph g"):
        verify_graph(graph, "a pass")


def missing_output(graph: Graph) -> None:
    graph.outputs.clear()


def extra_output(graph: Graph) -> None:
    graph.outputs["z"] = graph.nodes[0].result


def another_type(graph: Graph) -> None:
    graph.outputs["y"] = graph.nodes[0].result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing_output, r"output y was f32\[4\] and is nothing"),
        (extra_output, r"output z was nothing and is f32\[2,4\]"),
        (another_type, r"output y was f32\[4\] and is f32\[2,4\]"),
    ],
)
def test_a_pass_keeps_the_names_and_types_of_outputs(change: Callable[[Graph], None], message: str):
    def run(graph: Graph) -> Graph:
        changed = read_graph(TEXT)
        change(changed)
        return changed

    with pytest.raises(VerificationError, match=f"after a pass: graph g: {message}"):
        run_pass(Pass("a pass", run), {"g": read_graph(TEXT)})


def test_message_shows_the_node_between_its_neighbours():
    graph = read_graph(TEXT)
    wrong_type(graph)
    with pytest.raises(VerificationError) as caught:
        verify_graph(graph, "a pass")
    lines = str(caught.value).splitlines()
    assert lines[2].startswith("--> %1: f32[2,5] = exp(%0)") and "matmul" in lines[1] and "sum" in lines[3]
