"""Indices that are outside their tables for all data: mistakes that need not wait for a step."""

from __future__ import annotations

from compiler.diagnostics import Diagnostics, Note, Span
from compiler.ir.graph import Module, Node
from compiler.ops.ranges import Interval, index_limits, interval_of, limited


def report_indices(module: Module, diagnostics: Diagnostics) -> None:
    """An error for each `check_index` that fails whenever it runs."""
    limits = index_limits(module)
    for graph in module.values():
        checks = [node for node in graph.walk() if node.op.name == "check_index"]
        known = limited(graph, limits) if checks else {}
        for node in checks:
            found = interval_of(node.operands[0], known)
            if found is not None and is_outside(found, node) and node.origin:
                at = node.origin
                diagnostics.error(
                    Span(at.file, at.line, at.column, at.line, at.column + 1),
                    "the index is outside its table for all data",
                    expected=f"0 … {node.attributes['size'] - 1}, the rows of the table",
                    found=str(found[0]) if found[0] == found[1] else f"{found[0]} … {found[1]}",
                    notes=[Note(f"in {at.path}")] if at.path else [],
                )


def is_outside(found: Interval, node: Node) -> bool:
    return 0 not in node.result.type.shape and (found[1] < 0 or found[0] >= node.attributes["size"])
