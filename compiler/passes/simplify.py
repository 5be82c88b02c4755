"""simplify: every node by the equations of four tables, from its operands on, until none applies.

    algebra.py          arithmetic and logic: equations as text
    linear_sums.py      sums of what is linear in a large tensor
    shape_rules.py      ops that only move elements, and broadcasting, which elementwise ops do by themselves
    constant_folding    numbers

They are for a target on which every elementwise op on a large tensor is a pass over memory, while one on small tensors
costs next to nothing. Floats are taken for real numbers, but for what is not finite: `x * 0` stays, and so does a
selection of 0. Rounding may change, and the sign of a zero. The rules look at a node and at what its operands are made
of, and the nodes that a rule makes are simplified as they are made: one walk over the graph, and nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import ELEMENTWISE, VIEW
from compiler.ops import OPS
from compiler.passes.algebra import EQUATIONS, by_equations
from compiler.passes.constant_folding import folded
from compiler.passes.linear_sums import Sums
from compiler.passes.rewriting import keep, rebuild
from compiler.passes.shape_rules import SHAPE_RULES, unbroadcast, uniform

Rule = Callable[[Builder, Node], Value | None]


def simplify(graph: Graph) -> Graph:
    """See the file's docstring. Run after differentiation: `stop_gradient(x) = x`."""
    return rebuild(graph, keep, Simplifier)


def fold(builder: Builder, node: Node) -> Value | None:
    return folded(node, node.operands)


def rules_of(name: str) -> tuple[Rule, ...]:
    """All rules for an op, in the order in which they are tried."""
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
    """A builder that adds no node to which a rule applies, but what the rule gives instead."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.sums = Sums(self)

    def emit(self, name: str, operands: Sequence[Any], attributes: dict[str, Any]) -> Any:
        added = super().emit(name, operands, attributes)
        node = self.graph.nodes.pop()
        if (value := self.instead_of(node)) is not None:
            return value
        self.graph.nodes.append(node)
        return added

    def reuse(self, node: Node) -> list[Value]:
        value = self.instead_of(node)
        return super().reuse(node) if value is None else [value]

    def instead_of(self, node: Node) -> Value | None:
        """What a rule gives for a node that is not in the graph yet; None if no rule applies."""
        if node.op.name == "sum":
            return self.sums.total(node.operands[0], **node.attributes)
        found = (rule(self, node) for rule in RULES[node.op.name])
        return next((value for value in found if value is not None), None)
