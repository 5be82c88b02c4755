"""How each kind of statement runs. The result is CONTINUE, or what the declaration returns."""

from __future__ import annotations

from typing import Any

from compiler.elaborate.evaluator import STATEMENTS, Evaluator
from compiler.elaborate.frames import CONTINUE, Frame
from compiler.elaborate.totals import declare_total
from compiler.elaborate.values import POISON, describe, is_function, is_tensor, poisoned, tensors_in
from compiler.elaborate.variables import assign, declare
from compiler.language import syntax


def run_assign(evaluator: Evaluator, node: syntax.Assign, frame: Frame) -> Any:
    value = evaluator.evaluate(node.value, frame)
    count = len(node.targets)
    if count == 1:
        assign(evaluator, node.targets[0], value, frame)
        return CONTINUE
    if not isinstance(value, list) or len(value) != count:
        if not poisoned(value):
            message = f"{count} names need {count} values"
            evaluator.fail(node.value.span, frame, message, f"a list of {count}", describe(value))
        value = [POISON] * count
    for target, item in zip(node.targets, value, strict=True):
        assign(evaluator, target, item, frame)
    return CONTINUE


def run_return(evaluator: Evaluator, node: syntax.Return, frame: Frame) -> Any:
    values = [evaluator.evaluate(value, frame) for value in node.values]
    return POISON if poisoned(*values) else values[0] if len(values) == 1 else values


def run_if(evaluator: Evaluator, node: syntax.If, frame: Frame) -> Any:
    condition = evaluator.evaluate(node.condition, frame)
    if poisoned(condition):
        return POISON
    if not isinstance(condition, bool):
        message, expected = "not a boolean", "true or false"
        if is_tensor(condition):
            message = "the condition of an if must be known at compile time"
            expected = "a compile-time value (to choose by a tensor, use where(…))"
        return evaluator.fail(node.condition.span, frame, message, expected, describe(condition))
    return evaluator.run(node.then if condition else node.otherwise, frame)


def run_for(evaluator: Evaluator, node: syntax.For, frame: Frame) -> Any:
    items = evaluator.evaluate(node.iterable, frame)
    if poisoned(items):
        return POISON
    if not isinstance(items, list):
        message = "a for loop runs over a list at compile time"
        expected = "a list or range(n) (to run over the steps of a tensor, use scan)"
        return evaluator.fail(node.iterable.span, frame, message, expected, describe(items))
    for item in items:
        evaluator.tick(node.span, frame)
        assign(evaluator, node.variable, item, frame)
        result = evaluator.run(node.body, frame)
        if result is not CONTINUE:
            return result
    return CONTINUE


def run_expression(evaluator: Evaluator, node: syntax.ExpressionStatement, frame: Frame) -> Any:
    """Only `error(…)` and checks have an effect: a tensor or a layer that is not used was forgotten."""
    value = evaluator.evaluate(node.value, frame)
    if is_function(value) or tensors_in(value):
        message, expected = "this value is not used", "name = …, or return …"
        return evaluator.fail(node.value.span, frame, message, expected, describe(value))
    return CONTINUE


def run_declare(evaluator: Evaluator, node: syntax.Declare, frame: Frame) -> Any:
    (declare_total if node.kind == "total" else declare)(evaluator, node, frame)
    return CONTINUE


STATEMENTS |= {
    syntax.Assign: run_assign,
    syntax.Return: run_return,
    syntax.If: run_if,
    syntax.For: run_for,
    syntax.Declare: run_declare,
    syntax.ExpressionStatement: run_expression,
}
