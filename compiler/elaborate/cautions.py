"""Warnings about programs that run, but probably not as their authors mean. When in doubt, they are silent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from compiler.diagnostics import Note, Span
from compiler.elaborate.evaluator import Evaluator
from compiler.elaborate.frames import Frame, MetricTotal, node_span
from compiler.elaborate.over_examples import MEAN, UNKNOWN, Dependence, Known, first_unknown, of_source
from compiler.elaborate.signatures import Given
from compiler.elaborate.values import Builtin, CallRecord, Closure, is_tensor, tensors_in
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
    """Warns about `[B]` and `[B,1]` that make `[B,B]`."""
    for result in mistaken_pairs(evaluator):
        operands, span, frame = evaluator.pairs[result]
        shapes = show_shape(result.type.shape)
        evaluator.warn(
            span,
            frame,
            f"the operands make {shapes}, a value for each pair of examples",
            "operands of one shape; for pairs, reshape one to [1, B, …] and the other to [B, 1, …]",
            " and ".join(dict.fromkeys(str(each.type) for each in operands)),
            [note for each in operands for note in evaluator.shape_origin(each)],
        )


def mistaken_pairs(evaluator: Evaluator) -> list[Value]:
    """The results `[B,B]` of `[B]` and `[B,1]`, except those that meet another tensor of pairs, such as `a @ b`."""
    origins: dict[Value, set[Value]] = {result: {result} for result in evaluator.pairs}
    meant: set[Value] = set()
    for node in evaluator.context.graph.nodes if evaluator.pairs else ():
        if ELEMENTWISE in node.op.traits:
            found = [origins.get(operand, set()) for operand in node.operands]
            merged = set().union(*found)
            if any(batches(x.type) > 1 and not known for x, known in zip(node.operands, found, strict=True)):
                meant |= merged
            origins.setdefault(node.result, merged)
    return [result for result in evaluator.pairs if result not in meant]


# Values that depend on the batch --------------------------------------------------------------------------------------

DEPENDENCES = {
    "fixed": "a value that does not depend on the examples",
    "example": "values of single examples",
    "sum": "a sum over the examples",
    "largest": "the largest value of the examples",
    "smallest": "the smallest value of the examples",
    "unknown": "a value of the whole batch",
}


def describe_dependence(found: Dependence) -> str:
    return "a mean over the examples" if found == MEAN else DEPENDENCES[found.kind]


def reasons(value: Value, known: Known, span: Span) -> list[Note]:
    """The operation that is no longer a sum over the examples."""
    node = first_unknown(value, known)
    if node is None:
        return []
    given = [describe_dependence(known.get(each) or of_source(each)) for each in node.operands]
    return [Note(f"`{node.op.name}` of {' and '.join(dict.fromkeys(given))}", node_span(node, span))]


def warn_about_the_batch(
    evaluator: Evaluator, function: Closure | Builtin, value: Value, known: Known, span: Span, frame: Frame
) -> None:
    """Warns about a loss or metric that is not proved to be a mean over the examples."""
    found = known.get(value) or of_source(value)
    if not found.is_mean and not any(pair in known for pair in mistaken_pairs(evaluator)):  # these have their warning
        not_proved = "may not be" if found == UNKNOWN else "is not"
        message = f"{function.name} {not_proved} a mean over the examples, so its figures depend on the batches"
        expected = "a mean over the examples; or a metric, which declares totals over all data: metric … { total … }"
        evaluator.warn(span, frame, message, expected, describe_dependence(found), reasons(value, known, span))


def warn_about_total(evaluator: Evaluator, total: MetricTotal, known: Known) -> None:
    """Warns about a total that is not proved to be a sum over the examples; it is added up over batches."""
    message = f"the total {total.name} may not be a sum over the examples, so the metric may depend on the batches"
    expected, notes = "a sum over the examples of values of each alone", reasons(total.value, known, total.span)
    evaluator.warn(total.span, total.frame, message, expected, describe_dependence(known[total.value]), notes)


# Losses that expect logits --------------------------------------------------------------------------------------------

# What a loss of the library applies to its first argument, and functions whose results are not meant for it.
APPLIED_BY_LOSS = {
    "softmax_cross_entropy": ("softmax", ("softmax", "log_softmax")),
    "binary_cross_entropy_with_logits": ("sigmoid", ("sigmoid", "hard_sigmoid", "softmax", "log_softmax")),
}
ACTIVATIONS = {name for _, names in APPLIED_BY_LOSS.values() for name in names}


def note_activation(evaluator: Evaluator, name: str, result: Any, span: Span, frame: Frame) -> None:
    """Remembers the results of activations, of the library or builtin, and where the user applies them."""
    if name in ACTIVATIONS and is_tensor(result):
        evaluator.activated.setdefault(result, (name, evaluator.site(span, frame)[0]))


def warn_about_activated(evaluator: Evaluator, called: Frame, given: Sequence[Given], span: Span, frame: Frame) -> None:
    """Warns about a loss that applies softmax or sigmoid to what is the result of one."""
    if not (called.namespace.is_library and called.name in APPLIED_BY_LOSS and given and is_tensor(given[0].value)):
        return
    name, at = evaluator.activated.get(source_of(given[0].value), ("", span))
    applies, activations = APPLIED_BY_LOSS[called.name]
    if name in activations:
        evaluator.warn(
            span,
            frame,
            f"{called.name} applies {applies} itself, but is given the result of {name}",
            f"logits: the values before {name}",
            f"the result of {name}",
            [Note(f"{name} is applied here", at)],
        )


# Layers that are applied twice ----------------------------------------------------------------------------------------


def warn_about_second_use(evaluator: Evaluator, layer: Closure, called: Frame, span: Span, frame: Frame) -> None:
    """Warns about a layer value with parameters, such as `enc = Encoder(64)`, that one declaration applies twice.

    A hyperparameter is not meant: it says what layers to make.
    """
    if layer.hyperparameters is None or frame.namespace.is_library or not has_variables(evaluator, called.call):
        return
    given = [frame.variables.get(name) for name in frame.parameters]
    if layer.kind == "fn" or any(layer is each or (isinstance(each, list) and layer in each) for each in given):
        return
    if (layer, frame) not in evaluator.applied:
        evaluator.applied[layer, frame] = span
    elif first := evaluator.applied[layer, frame]:
        evaluator.applied[layer, frame] = None  # a third use has the same cause
        message = f"this {layer.kind} is applied a second time, with a second set of parameters"
        expected = f"{layer.name}(…) written at each place, for separate parameters"
        notes = [Note("the first time is here; parameters are not shared", first)]
        evaluator.warn(span, frame, message, expected, f"one {layer.name}(…), applied twice", notes)


def has_variables(evaluator: Evaluator, call: CallRecord | None) -> bool:
    """Whether a call, or one inside of it, declared params or states."""
    return call is not None and (bool(call.variables) or any(has_variables(evaluator, each) for each in call.children))
