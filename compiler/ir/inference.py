"""The types of a node's results, from its op's own rule.

Rules are pure, so results are cached by op, operand types and attributes. The verifier checks every node after every
pass, and mostly asks what the builder asked before. Nodes with a body are always inferred again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compiler.ir.op import Op
from compiler.ir.types import TensorType

Inferred = tuple[dict[str, Any], tuple[TensorType, ...]]
# By op, operand types, and the attributes as text, in which 1, 1.0 and true differ.
known: dict[tuple[Op, tuple[TensorType, ...], str], Inferred] = {}


def infer(op: Op, types: tuple[TensorType, ...], attributes: Mapping[str, Any]) -> Inferred:
    """The attributes in declared order with defaults filled in (shared: do not change them), and the result types.

    Raises TypeRuleError.
    """
    if "body" in attributes:
        return by_rule(op, types, attributes)
    key = (op, types, repr(attributes))
    if key not in known:
        known[key] = by_rule(op, types, attributes)
    return known[key]


def by_rule(op: Op, types: tuple[TensorType, ...], attributes: Mapping[str, Any]) -> Inferred:
    complete = op.complete(attributes)
    return complete, op.result_types(types, complete)
