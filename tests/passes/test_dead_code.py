"""dead-code inside bodies: results of a region or a scan that are not read are not computed."""

from __future__ import annotations

from compiler.ir.printer import print_graph
from compiler.passes.dead_code import remove_dead_code
from tests.programs import read_graph

REGION = """
graph g(%x: f32[4] input) {
  %0: f32[4], %1: f32[4] = fused(%x, step=0, body=graph body(%x0: f32[4]) {
    %0: f32[4] = exp(%x0)
    %1: f32[4] = neg(%0)
    %2: f32[4] = abs(%x0)
    return y0=%1, y1=%2
  })
  return y=%1
}"""
PRUNED = """
graph g(%x: f32[4] input) {
  %0: f32[4] = fused(%x, step=0, body=graph body(%x0: f32[4]) {
    %0: f32[4] = abs(%x0)
    return y1=%0
  })
  return y=%0
}"""


def test_an_unused_result_of_a_region_is_removed_with_its_nodes():
    graph = read_graph(REGION)
    assert print_graph(remove_dead_code(graph)).strip() == PRUNED.strip()
    assert print_graph(graph).strip() == REGION.strip()


def test_twice_is_once():
    assert print_graph(remove_dead_code(read_graph(PRUNED))).strip() == PRUNED.strip()
