"""How each kind of expression is evaluated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from compiler.elaborate import calls
from compiler.elaborate.arithmetic import binary, unary
from compiler.elaborate.cautions import note_pairs
from compiler.elaborate.evaluator import EXPRESSIONS, Evaluator
from compiler.elaborate.frames import Frame
from compiler.elaborate.indexing import index
from compiler.elaborate.signatures import Given
from compiler.elaborate.values import POISON, is_tensor, poisoned
from compiler.language import syntax

CONSTANTS: dict[str, Any] = {"none": None, "pi": 3.141592653589793}


def evaluate_constant(evaluator: Evaluator, node: Any, frame: Frame) -> Any:
    return node.value


def evaluate_name(evaluator: Evaluator, node: syntax.Name, frame: Frame) -> Any:
    if node.id in frame.variables:
        return frame.variables[node.id]
    if node.id in CONSTANTS:
        return CONSTANTS[node.id]
    if node.id == "training":
        return evaluator.training
    found = frame.namespace.find(node.id)
    if found is not None:
        return found
    if frame.damaged or node.span in frame.namespace.unknown:  # reported already, or lost with a syntax error
        return POISON
    return evaluator.fail(node.span, frame, f"{node.id} has no value here", "an assignment that ran earlier", node.id)


def evaluate_list(evaluator: Evaluator, node: syntax.ListLiteral, frame: Frame) -> Any:
    items = [evaluator.evaluate(item, frame) for item in node.items]
    return POISON if poisoned(*items) else items


def evaluate_unary(evaluator: Evaluator, node: syntax.Unary, frame: Frame) -> Any:
    return evaluator.guarded(node.span, frame, unary, node.operator, evaluator.evaluate(node.operand, frame))


def evaluate_binary(evaluator: Evaluator, node: syntax.Binary, frame: Frame) -> Any:
    left = evaluator.evaluate(node.left, frame)
    if node.operator in ("and", "or") and isinstance(left, bool) and left == (node.operator == "or"):
        return left
    right = evaluator.evaluate(node.right, frame)
    result = evaluator.guarded(node.span, frame, binary, node.operator, left, right)
    note_pairs(evaluator, (left, right), result, node.span, frame)
    evaluator.remember(node.operator, result, left if is_tensor(left) else right, node.span, frame)
    return result


def evaluate_index(evaluator: Evaluator, node: syntax.Index, frame: Frame) -> Any:
    target = evaluator.evaluate(node.target, frame)
    items = [evaluate_slice(evaluator, item, frame) for item in node.items]
    if poisoned(*items):
        return POISON
    result = evaluator.guarded(node.span, frame, index, target, items)
    if is_tensor(target):
        evaluator.remember("an index", result, target, node.span, frame)
    return result


def evaluate_slice(evaluator: Evaluator, node: syntax.Expression | syntax.Slice, frame: Frame) -> Any:
    if not isinstance(node, syntax.Slice):
        return evaluator.evaluate(node, frame)
    bounds = [bound and evaluator.evaluate(bound, frame) for bound in (node.start, node.stop, node.step)]
    return POISON if poisoned(*bounds) else slice(*bounds)


def evaluate_call(evaluator: Evaluator, node: syntax.Call, frame: Frame) -> Any:
    function = evaluator.evaluate(node.function, frame)
    given = [Given(evaluator.evaluate(a.value, frame), a.span, a.name) for a in node.arguments]
    for before, argument in pairwise(given):
        if before.name and not argument.name:
            expected = "positional arguments first, then named ones"
            return evaluator.fail(argument.span, frame, "this argument needs a name", expected, "no name")
    return calls.call(evaluator, function, given, node.span, frame)


def evaluate_pipe(evaluator: Evaluator, node: syntax.Pipe, frame: Frame) -> Any:
    stages = []  # a long pipeline nests deeply on the left: a loop, not recursion
    value: syntax.Expression = node
    while isinstance(value, syntax.Pipe):
        stages.append(value.function)
        value = value.value
    result = evaluator.evaluate(value, frame)
    for stage in reversed(stages):
        function = evaluator.evaluate(stage, frame)
        result = calls.apply_last(evaluator, function, [Given(result, stage.span)], stage.span, frame, piped=True)
    return result


EXPRESSIONS |= {
    syntax.Number: evaluate_constant,
    syntax.String: evaluate_constant,
    syntax.Boolean: evaluate_constant,
    syntax.Name: evaluate_name,
    syntax.ListLiteral: evaluate_list,
    syntax.Unary: evaluate_unary,
    syntax.Binary: evaluate_binary,
    syntax.Index: evaluate_index,
    syntax.Pipe: evaluate_pipe,
    syntax.Call: evaluate_call,
}
