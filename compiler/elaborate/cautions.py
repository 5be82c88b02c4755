"""Warnings about programs that run, but probably not as their authors mean. When in doubt, they are silent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compiler.diagnostics import Span
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.frames import Frame
from compiler.elaborate.values import is_tensor, tensors_in
from compiler.ir.graph import Value
from compiler.ir.op import ELEMENTWISE
from compiler.ir.types import Batch, TensorType, show_shape

SAME_ELEMENTS = ("reshape", "transpose", "broadcast", "cast")  # the result has the elements of the operand

# Pairs of examples ----------------------------------------------------------------------------------------------------


def batches(type: TensorType) -> int:
    """The number of axes that are the batch."""
    return sum(isinstance(dim, Batch) for dim in type.shape)


def note_pairs(evaluator: Evaluator, given: Iterable[Any], result: Any, span: Span, frame: Frame) -> None:
    """Remembers an elementwise operation in which `[B]` and `[B,1]` make `[B,B]`, for `warn_about_pairs`.

    Operands of the same rank, such as `[1,B]` and `[B,1]`, are meant to; so are two forms of one tensor.
    """
    if not is_tensor(result) or batches(result.type) < 2 or not result.node:
        return
    operands = [each for value in given for each in tensors_in(value) if batches(each.type)]
    stretched = all(batches(each.type) < batches(result.type) for each in operands)
    ranks, sources = {each.type.rank for each in operands}, {source_of(each) for each in operands}
    if ELEMENTWISE in result.node.op.traits and stretched and len(ranks) > 1 and len(sources) > 1:
        evaluator.pairs[result] = (operands, span, frame)


def source_of(value: Value) -> Value:
    """The tensor that has the same elements and is neither reshaped nor cast."""
    while value.node and value.node.op.name in SAME_ELEMENTS:
        value = value.node.operands[0]
    return value


def warn_about_pairs(evaluator: Evaluator) -> None:
    """Warns about `[B]` and `[B,1]` that make `[B,B]`, unless it meets another tensor of pairs, such as `a @ b`."""
    origins: dict[Value, set[Value]] = {result: {result} for result in evaluator.pairs}
    meant: set[Value] = set()
    for node in evaluator.context.graph.nodes if evaluator.pairs else ():
        if ELEMENTWISE in node.op.traits:
            found = [origins.get(operand, set()) for operand in node.operands]
            merged = set().union(*found)
            if any(batches(x.type) > 1 and not known for x, known in zip(node.operands, found, strict=True)):
                meant |= merged
            origins.setdefault(node.result, merged)
    for result, (operands, span, frame) in evaluator.pairs.items():
        if result not in meant:
            shapes = show_shape(result.type.shape)
            evaluator.warn(
                span,
                frame,
                f"the operands make {shapes}, a value for each pair of examples",
                "operands of one shape; for pairs, reshape one to [1, B, …] and the other to [B, 1, …]",
                " and ".join(dict.fromkeys(str(each.type) for each in operands)),
                [note for each in operands for note in evaluator.shape_origin(each)],
            )
