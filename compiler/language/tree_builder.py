"""The actions of the grammar: for each rule of grammar.lark, a function of the same name that makes its node.

Each is called with the parts that the rule has matched, in order: tokens, nodes, and lists of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from compiler.diagnostics import Span
from compiler.language import syntax
from compiler.language.lexer import ESCAPE, ESCAPES, Problem, Token
from runtime.errors import did_you_mean

Parts = list[Any]


class TreeError(Exception):
    """The tokens match the grammar but are not valid; the token at fault carries the problem."""

    def __init__(self, token: Token, problem: Problem):
        super().__init__(problem.message)
        token.problem = problem
        self.token = token


@dataclass(frozen=True, slots=True)
class StatementBlock:
    """Statements in braces; the tree keeps only the statements."""

    statements: tuple[syntax.Statement, ...]
    span: Span


def cover(first: Any, last: Any) -> Span:
    """From the start of one token or node to the end of a later one."""
    start, end = first.span, last.span
    return Span(start.file, start.line, start.column, end.end_line, end.end_column)


def name(parts: Parts) -> syntax.Name:
    return syntax.Name(parts[0].text, span=parts[0].span)


def _list_in(parts: Parts) -> tuple[Any, ...]:
    """The list among the parts, which is absent if it would be empty."""
    return next((tuple(part) for part in parts if type(part) is list), ())


def _after(token_type: str, parts: Parts) -> Any:
    """The part after a token of this type, or None if this optional token is absent."""
    for part, following in pairwise(parts):
        if type(part) is Token and part.type == token_type:
            return following
    return None


# Lists


def first(parts: Parts) -> Parts:
    return parts


def append(parts: Parts) -> Parts:
    parts[0].append(parts[-1])
    return parts[0]


def extend(parts: Parts) -> Parts:
    for part in parts[1:]:
        parts[0] += part if type(part) is list else (part,)
    return parts[0]


# Declarations


def function(parts: Parts) -> syntax.Function:
    kind, identifier, *groups, block = parts
    return syntax.Function(kind.text, name([identifier]), tuple(groups), block.statements, span=cover(kind, block))


def train(parts: Parts) -> syntax.Train:
    return syntax.Train(name(parts[1:]), _list_in(parts), span=cover(parts[0], parts[-1]))


def import_file(parts: Parts) -> syntax.Import:
    return syntax.Import(string(parts[1:]), span=cover(parts[0], parts[1]))


def entry(parts: Parts) -> syntax.Entry:
    return syntax.Entry(name(parts), parts[2], span=cover(parts[0], parts[2]))


def group(parts: Parts) -> tuple[syntax.Parameter, ...]:
    return _list_in(parts)


def parameter(parts: Parts) -> syntax.Parameter:
    return syntax.Parameter(
        name(parts), _after("COLON", parts), _after("EQUAL", parts), span=cover(parts[0], parts[-1])
    )


def tensor_type(parts: Parts) -> syntax.TypeExpression:
    dtype = parts[0]
    if dtype.text not in syntax.DTYPES:
        hint = did_you_mean(dtype.text, syntax.DTYPES)
        raise TreeError(dtype, Problem("unknown element type", ", ".join(syntax.DTYPES), f"`{dtype.text}`", hint))
    return syntax.TypeExpression(dtype.text, _list_in(parts), span=cover(dtype, parts[-1]))


def ellipsis(parts: Parts) -> syntax.EllipsisDim:
    return syntax.EllipsisDim(span=parts[0].span)


# Statements


def block(parts: Parts) -> StatementBlock:
    return StatementBlock(_list_in(parts), cover(parts[0], parts[-1]))


def assign(parts: Parts) -> syntax.Assign:
    targets = tuple(name([token]) for token in parts[0])
    return syntax.Assign(targets, parts[2], span=cover(targets[0], parts[2]))


def declare(parts: Parts) -> syntax.Declare:
    kind = parts[0]
    declared_type, value = _after("COLON", parts), _after("EQUAL", parts)
    return syntax.Declare(kind.text, name(parts[1:]), declared_type, value, span=cover(kind, parts[-1]))


def return_values(parts: Parts) -> syntax.Return:
    return syntax.Return(tuple(parts[1]), span=cover(parts[0], parts[1][-1]))


def for_each(parts: Parts) -> syntax.For:
    keyword, variable, _, iterable, body = parts
    return syntax.For(name([variable]), iterable, body.statements, span=cover(keyword, body))


def branch(parts: Parts) -> syntax.If:
    keyword, condition, then, *alternative = parts
    otherwise: tuple[syntax.Statement, ...] = ()
    if alternative:
        last = alternative[1]
        otherwise = last.statements if isinstance(last, StatementBlock) else (last,)
    return syntax.If(condition, then.statements, otherwise, span=cover(keyword, parts[-1]))


def expression_statement(parts: Parts) -> syntax.ExpressionStatement:
    return syntax.ExpressionStatement(parts[0], span=parts[0].span)


# Expressions


def expression(parts: Parts) -> syntax.Expression:
    """Groups a chain of operands and operators by binding strength (the shunting-yard algorithm, E. W. Dijkstra 1961).

    It works on two stacks instead of recursion, as a chain may be long.
    """
    chain: Parts = parts[0]
    if len(chain) == 1:
        return chain[0]
    operands: list[Any] = []
    operators: list[tuple[int, Token, bool]] = []  # binding strength, operator, whether it is a prefix
    after_operand = False
    for part in chain:
        if type(part) is not Token:
            operands.append(part)
        elif not after_operand:
            operators.append((syntax.UNARY_PRECEDENCE[part.text], part, True))
            continue
        else:
            strength = syntax.BINARY_PRECEDENCE[part.text]
            while operators and operators[-1][0] >= strength + (part.text == syntax.RIGHT_ASSOCIATIVE):
                if operators[-1][0] == syntax.COMPARISON_PRECEDENCE == strength:
                    raise TreeError(part, Problem("comparisons do not chain", "`a < b and b < c`, or parentheses"))
                _fold(operands, operators)
            operators.append((strength, part, False))
        after_operand = not after_operand
    while operators:
        _fold(operands, operators)
    return operands[0]


def _fold(operands: list[Any], operators: list[tuple[int, Token, bool]]) -> None:
    """Replaces the last operator and its operands by their node."""
    _, operator_token, is_prefix = operators.pop()
    symbol, right = operator_token.text, operands.pop()
    if is_prefix:
        operands.append(syntax.Unary(symbol, right, span=cover(operator_token, right)))
        return
    left = operands.pop()
    span = cover(left, right)
    pipe = symbol == "|>"
    operands.append(syntax.Pipe(left, right, span=span) if pipe else syntax.Binary(symbol, left, right, span=span))


def operator(parts: Parts) -> Token:
    return parts[0]


prefix = operator


def number(parts: Parts) -> syntax.Number:
    token = parts[0]
    return syntax.Number(int(token.text) if token.text.isdigit() else float(token.text), span=token.span)


def string(parts: Parts) -> syntax.String:
    token = parts[0]
    return syntax.String(ESCAPE.sub(lambda escape: ESCAPES[escape[1]], token.text[1:-1]), span=token.span)


def boolean(parts: Parts) -> syntax.Boolean:
    return syntax.Boolean(parts[0].text == "true", span=parts[0].span)


def parenthesized(parts: Parts) -> syntax.Expression:
    return replace(parts[1], span=cover(parts[0], parts[2]))


def list_literal(parts: Parts) -> syntax.ListLiteral:
    return syntax.ListLiteral(_list_in(parts), span=cover(parts[0], parts[-1]))


def call(parts: Parts) -> syntax.Call:
    return syntax.Call(parts[0], _list_in(parts), span=cover(parts[0], parts[-1]))


def argument(parts: Parts) -> syntax.Argument:
    keyword = parts[0].text if len(parts) == 3 else None
    return syntax.Argument(keyword, parts[-1], span=cover(parts[0], parts[-1]))


def index(parts: Parts) -> syntax.Index:
    return syntax.Index(parts[0], _list_in(parts), span=cover(parts[0], parts[-1]))


def bound(parts: Parts) -> syntax.Expression | None:
    return parts[0] if parts else None


def slice(parts: Parts) -> syntax.Slice:
    start, stop, step = (parts[::2] + [None])[:3]
    written = [part for part in parts if part is not None]
    return syntax.Slice(start, stop, step, span=cover(written[0], written[-1]))
