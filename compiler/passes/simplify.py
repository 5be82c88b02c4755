"""simplify: equations from four tables are applied to every node, operands first, until none applies.

    algebra.py          arithmetic and logic: equations as text
    linear_sums.py      sums of expressions that are linear in a large tensor
    shape_rules.py      ops that only move elements, and broadcasting, which elementwise ops do themselves
    constant_folding    numbers

They assume a target on which every elementwise op on a large tensor is a pass over memory, while ops on small tensors
cost next to nothing. docs/arithmetic.md lists what they take for granted about floats: rounding may change a bit, and
so may the sign of a zero, but `x * 0` stays, and so does a division or product that could overflow otherwise. The rules
look at a node and at the nodes that compute its operands. Nodes that a rule creates are simplified immediately, so one
walk over the graph is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import ELEMENTWISE, VIEW
from compiler.ops import OPS
from compiler.passes.algebra import EQUATIONS, by_equations
from compiler.passes.constant_folding import folded
from compiler.passes.linear_sums import Sums
from compiler.passes.rewriting import keep, rebuild
from compiler.passes.shape_rules import SHAPE_RULES, Rule, unbroadcast, uniform


def simplify(graph: Graph) -> Graph:
    """See the file's docstring. Run after differentiation: `stop_gradient(x) = x`."""
    return rebuild(graph, keep, Simplifier)


def fold(builder: Builder, node: Node) -> Value | None:
    return folded(node, node.operands)


def rules_of(name: str) -> tuple[Rule, ...]:
    """All rules for an op, in the order they are tried."""
    traits = OPS[name].traits
    return (
        fold,
        *SHAPE_RULES.get(name, ()),
        *((uniform,) if VIEW in traits else ()),
        *((unbroadcast,) if ELEMENTWISE in traits else ()),
        *((by_equations,) if name in EQUATIONS[True] else ()),
    )


RULES = {name: rules_of(name) for name in OPS}


class Simplifier(Builder):
    """A builder that adds the result of a rule in place of any node that a rule applies to."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.sums = Sums(self)

    def emit(self, name: str, operands: Sequence[Any], attributes: dict[str, Any]) -> Any:
        added = super().emit(name, operands, attributes)
        node = self.graph.nodes.pop()
        if (value := self.simplified(node)) is not None:
            return value
        self.graph.nodes.append(node)
        return added

    def reuse(self, node: Node) -> list[Value]:
        value = self.simplified(node)
        return super().reuse(node) if value is None else [value]

    def simplified(self, node: Node) -> Value | None:
        """The value that replaces a node that is not in the graph yet; None if no rule applies."""
        if node.op.name == "sum":
            gradient = node.origin is not None and node.origin.backward
            return self.sums.total(node.operands[0], **node.attributes, gradient=gradient)
        found = (rule(self, node) for rule in RULES[node.op.name])
        return next((value for value in found if value is not None), None)
