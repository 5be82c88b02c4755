"""constant-folding: f(2, 3) = its value, if every operand is known at compile time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.interpreter import evaluate, reference_dtype
from compiler.ir.op import BATCH, MAY_FAIL, RANDOM
from compiler.ir.types import fits
from compiler.passes.rewriting import rebuild

NOT_KNOWN = {BATCH, MAY_FAIL, RANDOM}  # traits of ops that have no value at compile time


def fold_constants(graph: Graph) -> Graph:
    """Scalars only, with the float64 reference; like numbers in the model, results are rounded where they are used."""

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        value = folded(node, operands)
        return None if value is None else [value]

    return rebuild(graph, rule)


def folded(node: Node, operands: Sequence[Value]) -> Literal | None:
    """The value of a node with these operands as a literal; None if it is not constant, or depends on the batch."""
    known = [operand for operand in operands if isinstance(operand, Literal)]
    types = [result.type for result in node.results]
    if not known or len(known) < len(operands) or len(types) > 1 or types[0].shape or node.op.traits & NOT_KNOWN:
        return None
    with np.errstate(all="ignore"):
        (array,) = evaluate(node, [np.asarray(each.value, reference_dtype(each.type)) for each in known], batch=1)
    value = np.asarray(array, reference_dtype(types[0])).item()
    return Literal(types[0], value=value) if fits(value, types[0].dtype) else None
