"""The syntax tree: what the parser builds, the elaborator reads and the formatter prints.

Nodes are immutable, and equal if they mean the same: spans are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from compiler.diagnostics import Span

# Binding strength of operators, weakest first. `**` groups to the right, comparisons do not chain, the rest group left.
BINARY_PRECEDENCE = {"|>": 1, "or": 2, "and": 3}
BINARY_PRECEDENCE |= dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 5)
BINARY_PRECEDENCE |= {"+": 6, "-": 6, "*": 7, "/": 7, "//": 7, "%": 7, "@": 7, "**": 9}
UNARY_PRECEDENCE = {"not": 4, "-": 8}
COMPARISON_PRECEDENCE = BINARY_PRECEDENCE["=="]
RIGHT_ASSOCIATIVE = "**"

DTYPES = ("f32", "f64", "i32", "i64", "u8", "bool")
FUNCTION_KINDS = ("fn", "layer", "cell", "metric", "optimizer", "model")
VARIABLE_KINDS = ("param", "state", "carry", "total")


@dataclass(frozen=True, slots=True)
class SyntaxNode:
    span: Span = field(kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class Number(SyntaxNode):
    value: int | float


@dataclass(frozen=True, slots=True)
class String(SyntaxNode):
    value: str


@dataclass(frozen=True, slots=True)
class Boolean(SyntaxNode):
    value: bool


@dataclass(frozen=True, slots=True)
class Name(SyntaxNode):
    id: str


@dataclass(frozen=True, slots=True)
class ListLiteral(SyntaxNode):
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Argument(SyntaxNode):
    name: str | None
    value: Expression


@dataclass(frozen=True, slots=True)
class Call(SyntaxNode):
    function: Expression
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Slice(SyntaxNode):
    """`start:stop:step` inside an index."""

    start: Expression | None
    stop: Expression | None
    step: Expression | None


@dataclass(frozen=True, slots=True)
class Index(SyntaxNode):
    target: Expression
    items: tuple[Expression | Slice, ...]


@dataclass(frozen=True, slots=True)
class Unary(SyntaxNode):
    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary(SyntaxNode):
    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Pipe(SyntaxNode):
    """`value |> function`."""

    value: Expression
    function: Expression


Expression = Number | String | Boolean | Name | ListLiteral | Call | Index | Unary | Binary | Pipe


@dataclass(frozen=True, slots=True)
class EllipsisDim(SyntaxNode):
    """`...` in a type: any number of dimensions."""


@dataclass(frozen=True, slots=True)
class TypeExpression(SyntaxNode):
    """`f32[B, 4 * units]`; the dtype is one of DTYPES."""

    dtype: str
    dims: tuple[Expression | EllipsisDim, ...]


@dataclass(frozen=True, slots=True)
class Assign(SyntaxNode):
    targets: tuple[Name, ...]
    value: Expression


@dataclass(frozen=True, slots=True)
class Return(SyntaxNode):
    values: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class If(SyntaxNode):
    """`else if` is an If as the only statement of `otherwise`."""

    condition: Expression
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class For(SyntaxNode):
    variable: Name
    iterable: Expression
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Declare(SyntaxNode):
    """`param w: f32[n, units] = init`; the kind is one of VARIABLE_KINDS."""

    kind: str
    name: Name
    type: TypeExpression | None
    value: Expression | None


@dataclass(frozen=True, slots=True)
class ExpressionStatement(SyntaxNode):
    value: Expression


Statement = Assign | Return | If | For | Declare | ExpressionStatement


@dataclass(frozen=True, slots=True)
class Parameter(SyntaxNode):
    name: Name
    type: TypeExpression | None
    default: Expression | None


@dataclass(frozen=True, slots=True)
class Function(SyntaxNode):
    """One or two groups of parameters. Damaged: statements with syntax errors, or the whole body, were left out."""

    kind: str
    name: Name
    groups: tuple[tuple[Parameter, ...], ...]
    body: tuple[Statement, ...]
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Entry(SyntaxNode):
    key: Name
    value: Expression


@dataclass(frozen=True, slots=True)
class Train(SyntaxNode):
    """Damaged: entries with syntax errors, or all entries, were left out."""

    model: Name
    entries: tuple[Entry, ...]
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Import(SyntaxNode):
    path: String


@dataclass(frozen=True, slots=True)
class Program(SyntaxNode):
    file: str
    imports: tuple[Import, ...]
    functions: tuple[Function, ...]
    trains: tuple[Train, ...]


def fields_of(node: SyntaxNode) -> Iterator[tuple[str, object]]:
    """The fields of a node by name, in the order of declaration, without the span."""
    for name in type(node).__match_args__:
        yield name, getattr(node, name)


def children(node: SyntaxNode) -> Iterator[SyntaxNode]:
    """The nodes directly below a node, in source order."""
    pending = [value for _, value in fields_of(node)][::-1]
    while pending:
        value = pending.pop()
        if isinstance(value, SyntaxNode):
            yield value
        elif isinstance(value, tuple):
            pending.extend(reversed(value))
