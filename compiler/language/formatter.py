"""Syntax tree to text: canonical source that parses back to an equal tree, and a listing of the tree for people.

Comments are not part of the tree, so they are not printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from compiler.language import syntax
from compiler.language.lexer import ESCAPES
from compiler.language.syntax import BINARY_PRECEDENCE, COMPARISON_PRECEDENCE, RIGHT_ASSOCIATIVE, UNARY_PRECEDENCE

INDENT = "  "
LONGEST_LINE = 100  # columns; longer pipelines get a line for each stage
STRONGEST = 10  # binds more than any operator: names, literals, calls
ESCAPED = str.maketrans({char: f"\\{letter}" for letter, char in ESCAPES.items()})


def format_program(program: syntax.Program) -> str:
    """Canonical source: two spaces of indentation, a blank line between declarations, no unnecessary parentheses."""
    imports = "\n".join(f"import {format_expression(node.path)}" for node in program.imports)
    declarations = [_function(node) for node in program.functions] + [_train(node) for node in program.trains]
    text = "\n\n".join(filter(None, [imports, *declarations]))
    return f"{text}\n" if text else ""


def format_expression(node: syntax.Expression) -> str:
    """An expression on one line."""
    match node:
        case syntax.Number(value):
            return repr(value)
        case syntax.String(value):
            return f'"{value.translate(ESCAPED)}"'
        case syntax.Boolean(value):
            return "true" if value else "false"
        case syntax.Name(identifier):
            return identifier
        case syntax.ListLiteral(items):
            return f"[{_commas(items)}]"
        case syntax.Unary(operator, operand):
            return f"{operator}{' ' * operator.isalpha()}{_operand(operand, UNARY_PRECEDENCE[operator])}"
        case _:
            return _chain(node)


def _chain(node: syntax.Expression) -> str:
    """Calls, pipelines and sums nest in their first operand, maybe deeply: a loop, not recursion."""
    steps: list[tuple[syntax.Expression, int, str]] = []  # first operand, how strongly it must bind, the text after it
    while True:
        match node:
            case syntax.Call(function, arguments):
                steps.append((function, STRONGEST, f"({_commas(arguments)})"))
            case syntax.Index(target, items):
                steps.append((target, STRONGEST, f"[{_commas(items)}]"))
            case syntax.Pipe(value, function):
                steps.append((value, *_infix("|>", function)))
            case syntax.Binary(operator, left, right):
                steps.append((left, *_infix(operator, right)))
            case _:
                break
        node = steps[-1][0]
    text = format_expression(node)
    for operand, strength, rest in reversed(steps):
        text = (text if _strength(operand) >= strength else f"({text})") + rest
    return text


def _infix(operator: str, right: syntax.Expression) -> tuple[int, str]:
    """How strongly the left operand of an operator must bind, and the text after it."""
    strength = BINARY_PRECEDENCE[operator]
    groups_right = operator == RIGHT_ASSOCIATIVE
    groups_left = not groups_right and strength != COMPARISON_PRECEDENCE
    right_strength = strength if groups_right else strength + 1
    if isinstance(right, syntax.Unary) and right.operator == "-":
        right_strength = UNARY_PRECEDENCE["-"]  # unambiguous after any operator: 2 ** -x
    return strength if groups_left else strength + 1, f" {operator} {_operand(right, right_strength)}"


def format_type(node: syntax.TypeExpression) -> str:
    """`f32[B, n]`, as written in a signature."""
    return f"{node.dtype}[{_commas(node.dims)}]"


def _operand(node: syntax.Expression, strength: int) -> str:
    """The operand of an operator: in parentheses if it binds less than this strength."""
    text = format_expression(node)
    return text if _strength(node) >= strength else f"({text})"


def _strength(node: syntax.Expression) -> int:
    match node:
        case syntax.Pipe():
            return BINARY_PRECEDENCE["|>"]
        case syntax.Binary(operator):
            return BINARY_PRECEDENCE[operator]
        case syntax.Unary(operator):
            return UNARY_PRECEDENCE[operator]
        case syntax.Number(value) if value < 0:  # never from the parser, but trees are also made by hand
            return UNARY_PRECEDENCE["-"]
    return STRONGEST


def _commas(nodes: Iterable[syntax.Expression | syntax.Slice | syntax.Argument | syntax.EllipsisDim]) -> str:
    return ", ".join(map(_item, nodes))


def _item(node: syntax.Expression | syntax.Slice | syntax.Argument | syntax.EllipsisDim) -> str:
    """An item of a list with commas."""
    match node:
        case syntax.Argument(keyword, value):
            return f"{keyword}={format_expression(value)}" if keyword else format_expression(value)
        case syntax.Slice(start, stop, step):
            bounds = [start, stop, step] if step else [start, stop]
            return ":".join(format_expression(bound) if bound else "" for bound in bounds)
        case syntax.EllipsisDim():
            return "..."
        case _:
            return format_expression(node)


def _function(node: syntax.Function) -> str:
    groups = "".join(f"({', '.join(map(_parameter, group))})" for group in node.groups)
    return "\n".join([f"{node.kind} {node.name.id}{groups} {{", *_block(node.body, INDENT), "}"])


def _parameter(node: syntax.Parameter) -> str:
    separator = " = " if node.type else "="
    return f"{node.name.id}{_annotation(node.type)}{_default(separator, node.default)}"


def _annotation(node: syntax.TypeExpression | None) -> str:
    return f": {format_type(node)}" if node else ""


def _default(separator: str, value: syntax.Expression | None) -> str:
    return f"{separator}{format_expression(value)}" if value else ""


def _train(node: syntax.Train) -> str:
    entries = [line for entry in node.entries for line in _lines(f"{entry.key.id} = ", (entry.value,), INDENT)]
    return "\n".join([f"train {node.model.id} {{", *entries, "}"])


def _block(statements: Iterable[syntax.Statement], indent: str) -> Iterator[str]:
    for statement in statements:
        yield from _statement(statement, indent)


def _statement(node: syntax.Statement, indent: str) -> Iterator[str]:
    match node:
        case syntax.Assign(targets, value):
            yield from _lines(f"{_commas(targets)} = ", (value,), indent)
        case syntax.Return(values):
            yield from _lines("return ", values, indent)
        case syntax.ExpressionStatement(value):
            yield from _lines("", (value,), indent)
        case syntax.Declare(kind, name, declared_type, value):
            yield f"{indent}{kind} {name.id}{_annotation(declared_type)}{_default(' = ', value)}"
        case syntax.For(variable, iterable, body):
            yield f"{indent}for {variable.id} in {format_expression(iterable)} {{"
            yield from _block(body, indent + INDENT)
            yield indent + "}"
        case syntax.If():
            yield from _branches(node, indent)


def _branches(node: syntax.If, indent: str) -> Iterator[str]:
    """`if` with all its `else if`, which nest in the tree but not in the text."""
    yield f"{indent}if {format_expression(node.condition)} {{"
    yield from _block(node.then, indent + INDENT)
    while len(node.otherwise) == 1 and isinstance(node.otherwise[0], syntax.If):
        node = node.otherwise[0]
        yield f"{indent}}} else if {format_expression(node.condition)} {{"
        yield from _block(node.then, indent + INDENT)
    if node.otherwise:
        yield indent + "} else {"
        yield from _block(node.otherwise, indent + INDENT)
    yield indent + "}"


def _lines(prefix: str, values: tuple[syntax.Expression, ...], indent: str) -> list[str]:
    """One line, or one line for each stage of a long pipeline."""
    line = f"{indent}{prefix}{_commas(values)}"
    match values:
        case [syntax.Pipe() as value] if len(line) > LONGEST_LINE:
            strength = BINARY_PRECEDENCE["|>"]
            stages: list[str] = []
            while isinstance(value, syntax.Pipe):
                stages.append(f"{indent}{INDENT}|> {_operand(value.function, strength + 1)}")
                value = value.value
            return [f"{indent}{prefix}{_operand(value, strength)}", *reversed(stages)]
    return [line]


def dump_tree(program: syntax.Program) -> str:
    """One node per line, indented below its parent: its field there, its type, its values and its line:column."""
    lines: list[str] = []
    pending: list[tuple[int, str, syntax.SyntaxNode]] = [(0, "", program)]
    while pending:
        level, label, node = pending.pop()
        below: list[tuple[int, str, syntax.SyntaxNode]] = []
        words = [type(node).__name__]
        for field, value in syntax.fields_of(node):
            if isinstance(value, tuple):
                below += [(level + 1, f"{where}: ", item) for where, item in _labelled(field, value)]
            elif isinstance(value, syntax.SyntaxNode):
                below.append((level + 1, f"{field}: ", value))
            elif value is not None:
                words.append(f"{field}={value!r}")
        lines.append(f"{INDENT * level}{label}{' '.join(words)} {node.span.line}:{node.span.column}\n")
        pending += reversed(below)
    return "".join(lines)


def _labelled(field: str, items: tuple[object, ...]) -> Iterator[tuple[str, syntax.SyntaxNode]]:
    """The nodes in a tuple, or in a tuple of tuples, each with its field in the parent."""
    for position, item in enumerate(items):
        if isinstance(item, syntax.SyntaxNode):
            yield field, item
        elif isinstance(item, tuple):
            yield from _labelled(f"{field}[{position}]", item)
