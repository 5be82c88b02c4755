"""The types of a node's results, from its op's own rule.

Rules are pure: what one said of the same operand types and attributes is remembered. The verifier, which asks for every
node after every pass, asks mostly what the builder asked before. Nodes with a body are always inferred anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compiler.ir.op import Op
from compiler.ir.types import TensorType

Inferred = tuple[dict[str, Any], tuple[TensorType, ...]]
# By the op, the types of the operands, and the attributes as text, in which 1, 1.0 and true differ.
known: dict[tuple[Op, tuple[TensorType, ...], str], Inferred] = {}


def infer(op: Op, types: tuple[TensorType, ...], attributes: Mapping[str, Any]) -> Inferred:
    """The attributes in declared order with defaults filled in (nobody may change them), and the types of the results.

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
