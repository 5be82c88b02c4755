"""Differences of graphs: they show only what is computed differently, whatever was renumbered."""

from __future__ import annotations

import pytest

from compiler.ir.difference import Listing, difference
from tests.programs import read_graph

BEFORE = """
graph g(%x: f32[3] input, %w: f32[3] param) {
  %0: f32[3] = exp(%x)
  %1: f32[3] = neg(%x)
  %2: f32[3] = add(%1, 0.5)
  %3: f32[3] = mul(%2, %2)
  %4: f32[3] = div(%3, %w)
  %5: f32[3] = max(%4, 0.0)
  %6: f32[3] = tanh(%5)
  return y=%6
}"""
DEAD_CODE_GONE = """
graph g(%x: f32[3] input, %w: f32[3] param) {
  %0: f32[3] = neg(%x)
  %1: f32[3] = add(%0, 0.5)
  %2: f32[3] = mul(%1, %1)
  %3: f32[3] = div(%2, %w)
  %4: f32[3] = max(%3, 0.0)
  %5: f32[3] = tanh(%4)
  return y=%5
}"""
REWRITTEN = """
graph g(%x: f32[3] input, %w: f32[3] param) {
  %0: f32[3] = neg(%x)
  %1: f32[3] = sub(%0, -0.5)
  %2: f32[3] = copy(%1)
  %3: f32[3] = mul(%2, %2)
  %4: f32[3] = div(%3, %w)
  %5: f32[3] = max(%4, 0.0)
  %6: f32[3] = tanh(%5)
  return y=%6
}"""
CHANGES = {
    "removed": (
        BEFORE,
        DEAD_CODE_GONE,
        """graph g: 1 removed
@@ line 1 @@
  graph g(%x: f32[3] input, %w: f32[3] param) {
-   %0: f32[3] = exp(%x)
    %1: f32[3] = neg(%x)
    %2: f32[3] = add(%1, 0.5)
    %3: f32[3] = mul(%2, %2)""",
    ),
    "replaced": (
        DEAD_CODE_GONE,
        REWRITTEN,
        """graph g: 1 removed, 2 added
@@ line 1 @@
  graph g(%x: f32[3] input, %w: f32[3] param) {
    %0: f32[3] = neg(%x)
-   %1: f32[3] = add(%0, 0.5)
+   %+1: f32[3] = sub(%0, -0.5)
+   %1: f32[3] = copy(%+1)
    %2: f32[3] = mul(%1, %1)
    %3: f32[3] = div(%2, %w)
    %4: f32[3] = max(%3, 0.0)""",
    ),
    "merged": (
        """graph g(%x: f32[3] input) {
  %0: f32[3] = exp(%x)
  %1: f32[3] = neg(%0)
  %2: f32[3] = exp(%x)
  %3: f32[3] = abs(%2)
  return a=%1, b=%3
}""",
        """graph g(%x: f32[3] input) {
  %0: f32[3] = exp(%x)
  %1: f32[3] = neg(%0)
  %2: f32[3] = abs(%0)
  return a=%1, b=%2
}""",
        """graph g: 2 removed, 1 added
@@ line 1 @@
  graph g(%x: f32[3] input) {
    %0: f32[3] = exp(%x)
    %1: f32[3] = neg(%0)
-   %2: f32[3] = exp(%x)
-   %3: f32[3] = abs(%2)
+   %3: f32[3] = abs(%0)
    return a=%1, b=%3""",
    ),
    "moved": (
        """graph g(%x: f32[3] input) {
  %0: f32[3] = exp(%x)
  %1: f32[3] = neg(%x)
  return a=%0, b=%1
}""",
        """graph g(%x: f32[3] input) {
  %0: f32[3] = neg(%x)
  %1: f32[3] = exp(%x)
  return a=%1, b=%0
}""",
        """graph g: 1 moved
@@ line 1 @@
  graph g(%x: f32[3] input) {
>   %1: f32[3] = neg(%x)
    %0: f32[3] = exp(%x)
    return a=%0, b=%1""",
    ),
    "in a body": (
        """graph g(%h: f32[2] input, %x: f32[5,2] input) {
  %0: f32[5,2] = neg(%x)
  %1: f32[2], %2: f32[5,2] = scan(%h, %x, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = exp(%x)
    %1: f32[2] = add(%h, %0)
    return y0=%1, y1=%1
  })
  return a=%2
}""",  # noqa: E501
        """graph g(%h: f32[2] input, %x: f32[5,2] input) {
  %0: f32[2], %1: f32[5,2] = scan(%h, %x, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
    %0: f32[2] = exp(%x)
    %1: f32[2] = add(%h, %0)
    %2: f32[2] = copy(%1)
    return y0=%1, y1=%2
  })
  return a=%1
}""",  # noqa: E501
        """graph g: 2 removed, 2 added
@@ line 1 @@
  graph g(%h: f32[2] input, %x: f32[5,2] input) {
-   %0: f32[5,2] = neg(%x)
    %1: f32[2], %2: f32[5,2] = scan(%h, %x, carries=1, sequences=1, reverse=false, body=graph body(%h: f32[2] carry, %x: f32[2] sequence) {
      %0: f32[2] = exp(%x)
      %1: f32[2] = add(%h, %0)
-     return y0=%1, y1=%1
+     %+2: f32[2] = copy(%1)
+     return y0=%1, y1=%+2
    })
    return a=%2""",  # noqa: E501
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_change(name: str):
    before, after, expected = CHANGES[name]
    assert difference(Listing.of(read_graph(before)), read_graph(after)) == expected


def test_the_same():
    assert difference(Listing.of(read_graph(BEFORE)), read_graph(BEFORE)) == "graph g: unchanged"


def test_a_new_graph_is_all_added():
    lines = difference(None, read_graph(BEFORE)).splitlines()
    assert lines[0] == "graph g: 9 added" and all(line.startswith("+ ") for line in lines[2:])
    assert lines[3] == "+   %0: f32[3] = exp(%x)"


def test_a_listing_keeps_what_passes_change():
    graph = read_graph(BEFORE)
    listing = Listing.of(graph)
    del graph.nodes[0]
    graph.outputs["y"] = graph.nodes[0].results[0]
    assert difference(listing, graph) != "graph g: unchanged"
    assert len(listing.rows) == 7 and listing.outputs["y"] is not graph.outputs["y"]
