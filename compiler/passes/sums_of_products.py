"""sums-of-products: a product that is only summed is not written to memory.

p = a * b; s = sum(p)   →   s = sum_of_products(a, b)      a and b of the shape of p, p not read anywhere else
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value, readers_of
from compiler.passes.rewriting import rebuild


def sum_products(graph: Graph) -> Graph:
    """See the file's docstring. The products stay as dead code."""
    readers = {value: found for each in (graph, *bodies(graph)) for value, found in readers_of(each).items()}

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if node.op.name != "sum" or node.attributes["keepdims"]:
            return None
        product, old = operands[0].node, node.operands[0]
        if product is None or product.op.name != "mul" or len(readers[old]) > 1:
            return None
        if any(factor.type != old.type for factor in product.operands):
            return None
        return [builder.sum_of_products(*product.operands, axes=node.attributes["axes"])]

    return rebuild(graph, rule)


def bodies(graph: Graph) -> list[Graph]:
    """The bodies in a graph, at any depth."""
    return [node.body for node in graph.walk() if "body" in node.attributes]
