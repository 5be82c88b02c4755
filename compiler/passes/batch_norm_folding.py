"""batch-norm-folding: where nothing is trained, a factor per output channel moves into the weights before it.

    mul(product(x, w), s)         = product(x, mul(w, s))                   product: conv2d or matmul
    mul(add(product(x, w), b), s) = add(product(x, mul(w, s)), mul(b, s))

w and s depend on variables and numbers alone, so the new weights can be computed once instead of for every batch. Batch
normalization after a convolution or a dense layer becomes the addition of one vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.passes.fixed_values import fixed_values
from compiler.passes.rewriting import keep, rebuild
from compiler.passes.simplify import Simplifier

PRODUCTS = ("conv2d", "matmul")


def fold_batch_norms(graph: Graph) -> Graph:
    """See the file's docstring. A graph that updates variables is not changed: its weights are new in every step."""
    variables = {value.name for value in graph.of_kind("param", "state", "slot", "counter")}
    if variables & set(graph.outputs):
        return rebuild(graph, keep)
    return rebuild(graph, Folder(graph).rule, Simplifier)  # later offsets combine with b * s


class Folder:
    """What the rule must know about values while the graph is rebuilt."""

    def __init__(self, graph: Graph):
        self.was_fixed = fixed_values(graph)
        self.reads = Counter([*graph.outputs.values(), *(operand for node in graph.nodes for operand in node.operands)])
        self.fixed: set[Value] = set()  # new values that depend on variables and numbers alone
        self.alone: set[Value] = set()  # new values that are read once

    def rule(self, builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        for old, new in zip(node.operands, operands, strict=True):
            self.fixed |= {new} if old in self.was_fixed else set()
            self.alone |= {new} if self.reads[old] == 1 else set()
        if node.op.name != "mul":
            return None
        pairs = (operands, operands[::-1])
        return next(([value] for y, s in pairs if (value := self.folded(builder, y, s)) is not None), None)

    def folded(self, builder: Builder, y: Value, s: Value) -> Value | None:
        """mul(y, s) with s in the weights, if y is a product, or a product plus an offset per channel."""
        offset = None
        if y in self.alone and y.node is not None and y.node.op.name == "add":
            pairs = (y.node.operands, y.node.operands[::-1])
            y, offset = next(((a, b) for a, b in pairs if is_product(a) and is_per_channel(b, a)), (y, None))
        if not (is_product(y) and y in self.alone and s in self.fixed and is_per_channel(s, y)):
            return None
        assert y.node is not None
        x, w = y.node.operands
        if w not in self.fixed:
            return None
        scaled = builder.mul(w, vector(builder, s))
        product = builder.emit(y.node.op.name, [x, scaled], y.node.attributes)
        self.fixed.add(scaled)
        self.alone.add(product)
        return product if offset is None else builder.add(product, builder.mul(offset, s))


def is_product(value: Value) -> bool:
    return value.node is not None and value.node.op.name in PRODUCTS


def is_per_channel(value: Value, y: Value) -> bool:
    """One number for each element of the last axis of y, or one for all."""
    *leading, channels = value.type.shape or (1,)
    return value.type.rank <= y.type.rank and set(leading) <= {1} and channels in (1, y.type.shape[-1])


def vector(builder: Builder, s: Value) -> Value:
    """s with one axis or none: weights may have fewer axes than the product."""
    return s if s.type.rank < 2 else builder.reshape(s, shape=s.type.shape[-1:])
