"""Reads IR text back. Types are inferred again from each op's rule and must match the ones in the text.

Any text is safe to read: the first mistake is reported as a UserError with its place in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isinf
from typing import Any, NamedTuple, NoReturn

from compiler.diagnostics import Diagnostic, Note, Span, UserError
from compiler.ir.builder import Builder, literal
from compiler.ir.graph import VARIABLES, Graph, Module, Origin, Scalar, Value
from compiler.ir.op import known_ops
from compiler.ir.printer import PLAIN_LITERALS
from compiler.ir.types import DTYPES, Batch, TensorType, TypeRuleError, parse_type
from runtime.errors import did_you_mean

TOKENS = re.compile(
    r"""(?P<comment>//[^\n]*) | (?P<space>\s+) | (?P<value>%[\w.]+)
      | (?P<type>(?:f32|f64|i32|i64|u8|bool)\[[^\[\]\n]*\])
      | (?P<number>-?\d+(?:\*B\b|\.\d*(?:e[+-]?\d+)?|e[+-]?\d+)?|-inf\b) | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<name>[A-Za-z_][\w.]*) | (?P<mark>[(){}\[\],=:]) | (?P<unknown>.)""",
    re.VERBOSE | re.ASCII,
)
KINDS_OF_TOKENS = {  # what the error says if one is missing
    "value": "a value such as %0",
    "type": "a type such as f32[B,3]",
    "name": "a name",
}
ORIGIN = re.compile(r"// (.+):(\d{1,9}):(\d{1,9})(?: ((?!\(backward\))\S+))?( \(backward\))?$")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)

KINDS = ("input", "target", "place", "total", *VARIABLES, "carry", "sequence", "constant")
WORDS: dict[str, Any] = {"true": True, "false": False, "inf": float("inf"), "nan": float("nan"), "B": Batch()}
DEEPEST_NESTING = 30  # bodies within bodies, lists within lists
LONGEST_INTEGER = 20  # digits: every value of 64 bits has fewer
LONGEST_EXCERPT = 60  # characters of a token in a message
MOST_LISTED = 12  # names in a message


class IrToken(NamedTuple):
    """A word of IR text; lines and columns count from 1."""

    kind: str
    text: str
    line: int
    column: int


Definitions = dict[str, tuple[Value, IrToken]]  # the values of a graph by name, each with the place of its definition


def read_module(text: str, file: str = "<ir>") -> Module:
    """Reads what `printer.print_module` wrote; raises UserError at the first mistake."""
    return Reader(text, file).module()


class Reader:
    """A recursive-descent parser with two tokens of lookahead; recursion is as deep as bodies nest."""

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.origins: dict[int, Origin] = {}  # by line
        self.variables: dict[str, tuple[TensorType, IrToken]] = {}
        self.tokens = self.tokenize(text)
        self.token, self.following = next(self.tokens), next(self.tokens)
        self.last_line = 1  # of the text read so far
        self.depth = 0

    def tokenize(self, text: str) -> Iterator[IrToken]:
        """The tokens, then endless `end` tokens. Comments that are origins are recorded by line."""
        line, line_start = 1, 0
        for match in TOKENS.finditer(text):
            kind, token = str(match.lastgroup), match[0]
            if kind == "comment":
                if origin := ORIGIN.match(token):
                    file, row, column, path, backward = origin.groups()
                    self.origins[line] = Origin(file, int(row), int(column), path or "", bool(backward))
            elif kind != "space":
                yield IrToken(kind, token, line, match.start() - line_start + 1)
            if newlines := token.count("\n"):
                line, line_start = line + newlines, match.start() + token.rfind("\n") + 1
        while True:
            yield IrToken("end", "the end of the text", line, len(text) - line_start + 1)

    # Tokens -----------------------------------------------------------------------------------------------------------

    def fail(self, token: IrToken, message: str, expected: str | None = None, found: str | None = None) -> NoReturn:
        self.report(Diagnostic(message, self.span(token), expected, found))

    def report(self, diagnostic: Diagnostic) -> NoReturn:
        raise UserError([diagnostic], {self.file: self.text})

    def span(self, token: IrToken) -> Span:
        width = 1 if token.kind == "end" else len(token.text)
        return Span(self.file, token.line, token.column, token.line, token.column + width)

    def unexpected(self, expected: str) -> NoReturn:
        text = self.token.text
        shown = text if len(text) <= LONGEST_EXCERPT else text[:LONGEST_EXCERPT] + "…"
        self.fail(self.token, "syntax error", expected, shown if self.token.kind == "end" else f"`{shown}`")

    def advance(self) -> IrToken:
        token = self.token
        self.last_line = token.line
        self.token, self.following = self.following, next(self.tokens)
        return token

    def take(self, kind: str, text: str | None = None) -> IrToken:
        if self.token.kind != kind or text not in (None, self.token.text):
            self.unexpected(f"`{text}`" if text else KINDS_OF_TOKENS[kind])
        return self.advance()

    def accept(self, mark: str) -> bool:
        found = self.token.kind == "mark" and self.token.text == mark
        if found:
            self.advance()
        return found

    def items(self, close: str, read: Callable[[], None]) -> None:
        """Items separated by commas, up to and including the closing mark."""
        while not self.accept(close):
            read()
            if not self.accept(","):
                if self.token.text != close:
                    self.unexpected(f"`,` or `{close}`")
                self.advance()
                return

    @contextmanager
    def nested(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > DEEPEST_NESTING:
            self.fail(self.token, "bodies and lists are nested too deeply", f"at most {DEEPEST_NESTING} levels")
        yield
        self.depth -= 1

    # Graphs -----------------------------------------------------------------------------------------------------------

    def module(self) -> Module:
        module: Module = {}
        outputs: list[tuple[IrToken, TensorType]] = []
        while self.token.kind != "end":
            named = self.following
            graph = self.graph(outputs)
            if graph.name in module:
                self.fail(named, f"a second graph named {graph.name}", "one graph of each name", graph.name)
            module[graph.name] = graph
        for token, type in outputs:
            variable, declared = self.variables.get(token.text, (type, token))
            if variable != type:
                message = f"the new value of the variable {token.text} has a different type"
                self.clash(token, message, variable, type, declared)
        return module

    def graph(self, outputs: list[tuple[IrToken, TensorType]] | None = None) -> Graph:
        """A graph of the module, whose outputs are recorded, or the body of a node."""
        self.take("name", "graph")
        name = self.take("name")
        if not IDENTIFIER.fullmatch(name.text):
            self.fail(name, "this cannot be the name of a graph", "letters, digits and underscores", name.text)
        graph = Graph(name.text)
        builder, scope = Builder(graph), Definitions()
        self.take("mark", "(")
        self.items(")", lambda: self.input(builder, scope, outputs is not None))
        self.take("mark", "{")
        while self.token.kind == "value":
            self.node(builder, scope)
        self.take("name", "return")
        self.items("}", lambda: self.output(graph, scope, outputs))
        return graph

    def input(self, builder: Builder, scope: Definitions, of_module: bool) -> None:
        name = self.take("value")
        if name.text[1].isdigit():
            self.fail(name, "this cannot be the name of an input", "a name that begins with a letter", name.text)
        self.take("mark", ":")
        type = self.type()
        kind = self.advance() if self.token.kind == "name" else None
        if kind and kind.text not in KINDS:
            self.unknown(kind, "kind of input", KINDS)
        self.define(name, builder.input(name.text[1:], type, kind.text if kind else ""), scope)
        if of_module and kind and kind.text in VARIABLES:
            self.declare_variable(name, type)

    def declare_variable(self, name: IrToken, type: TensorType) -> None:
        if any(isinstance(dim, Batch) for dim in type.shape):
            self.fail(name, "a variable depends on the batch", "sizes known at compile time", str(type))
        known, token = self.variables.setdefault(name.text[1:], (type, name))
        if known != type:
            self.clash(name, f"the variable {name.text} has a different type in another graph", known, type, token)

    def clash(
        self, token: IrToken, message: str, expected: TensorType, found: TensorType, declared: IrToken
    ) -> NoReturn:
        notes = (Note(f"{expected} is declared here", self.span(declared)),)
        self.report(Diagnostic(message, self.span(token), str(expected), str(found), notes))

    def output(self, graph: Graph, scope: Definitions, outputs: list[tuple[IrToken, TensorType]] | None) -> None:
        name = self.take("name")
        if name.text in graph.outputs:
            self.fail(name, f"a second output named {name.text}", "one output of each name", name.text)
        self.take("mark", "=")
        graph.outputs[name.text] = value = self.operand(scope)
        if outputs is not None:
            outputs.append((name, value.type))

    # Nodes ------------------------------------------------------------------------------------------------------------

    def node(self, builder: Builder, scope: Definitions) -> None:
        declared: list[tuple[IrToken, IrToken, TensorType]] = []
        while not declared or self.accept(","):
            name = self.take("value")
            self.take("mark", ":")
            declared.append((name, self.token, self.type()))
        self.take("mark", "=")
        op = self.take("name")
        if op.text not in known_ops():
            self.unknown(op, "op", known_ops())
        operands, attributes = self.arguments(scope)
        builder.origin = self.origins.get(self.last_line)
        with self.refusing(op, f"{op.text}: "):
            builder.emit(op.text, operands, attributes)
        results = builder.graph.nodes[-1].results
        inferred = ", ".join(str(value.type) for value in results)
        if len(results) != len(declared):
            self.fail(op, f"{op.text} has a different number of results", inferred, f"{len(declared)} results")
        for (name, token, type), value in zip(declared, results, strict=True):
            if value.type != type:
                self.fail(token, f"the result of {op.text} has a different type", str(value.type), str(type))
            self.define(name, value, scope)

    def arguments(self, scope: Definitions) -> tuple[list[Value], dict[str, Any]]:
        operands: list[Value] = []
        attributes: dict[str, Any] = {}

        def read() -> None:
            if self.token.kind == "name" and self.following.text == "=":
                name = self.advance()
                if name.text in attributes:
                    self.fail(name, f"a second attribute {name.text}", "each attribute once", name.text)
                self.take("mark", "=")
                attributes[name.text] = self.attribute()
            else:
                operands.append(self.operand(scope))

        self.take("mark", "(")
        self.items(")", read)
        return operands, attributes

    def operand(self, scope: Definitions) -> Value:
        token = self.token
        if token.kind == "value":
            self.advance()
            if token.text not in scope:
                hint = "" if token.text[1].isdigit() else did_you_mean(token.text, scope)
                message = f"{token.text} is not defined before this line" + (f"; {hint}" if hint else "")
                self.fail(token, message, "an input, or the result of a node above", token.text)
            return scope[token.text][0]
        value = self.attribute()
        if type(value) not in PLAIN_LITERALS:
            self.fail(token, "this cannot be an operand", "a value, a number, true or false", f"`{token.text}`")
        return self.literal(token, value)

    def literal(self, token: IrToken, value: Scalar) -> Value:
        """A number, with its dtype if one is written."""
        dtype = PLAIN_LITERALS[type(value)]
        if self.accept(":"):
            written = self.take("name")
            if written.text not in DTYPES:
                self.unknown(written, "dtype", DTYPES)
            dtype = written.text
        with self.refusing(token):
            return literal(value, dtype)

    def attribute(self) -> Any:
        token = self.token
        if token.kind == "mark" and token.text == "[":
            self.advance()
            items: list[Any] = []
            with self.nested():
                self.items("]", lambda: items.append(self.attribute()))
            return tuple(items)
        if token.kind == "name" and token.text == "graph":
            with self.nested():
                return self.graph()
        if token.kind == "name" and token.text in WORDS:
            return WORDS[self.advance().text]
        if token.kind == "string":
            return self.string()
        if token.kind == "number":
            return self.number()
        self.unexpected("a value, a number, a string, a list, true, false or a graph")

    # Parts of nodes ---------------------------------------------------------------------------------------------------

    def type(self) -> TensorType:
        token = self.take("type")
        if any(len(digits) > LONGEST_INTEGER for digits in re.findall(r"\d+", token.text)):
            self.too_long(token)
        try:
            with self.refusing(token):
                return parse_type(token.text)
        except ValueError:
            self.fail(token, "this is not a type", "a type such as f32[B,3]", token.text)

    def string(self) -> str:
        token = self.advance()
        try:
            return json.loads(token.text)
        except ValueError:
            self.fail(token, "this is not a string", "a string as in JSON", token.text[:LONGEST_EXCERPT])

    def number(self) -> Any:
        token = self.advance()
        if token.text.endswith("*B") or re.fullmatch(r"-?\d+", token.text):
            if len(token.text) > LONGEST_INTEGER:
                self.too_long(token)
            return Batch(int(token.text[:-2])) if token.text.endswith("B") else int(token.text)
        value = float(token.text)
        if isinf(value) and token.text != "-inf":
            self.fail(token, "the number is too large", "a number below 1.8e308, or inf", token.text[:LONGEST_EXCERPT])
        return value

    def too_long(self, token: IrToken) -> NoReturn:
        self.fail(token, "the number is too long", f"at most {LONGEST_INTEGER} digits", f"{len(token.text)} characters")

    def define(self, name: IrToken, value: Value, scope: Definitions) -> None:
        if name.text in scope:
            notes = (Note("the first is here", self.span(scope[name.text][1])),)
            message = f"{name.text} is defined twice"
            self.report(Diagnostic(message, self.span(name), "each value once", name.text, notes))
        scope[name.text] = value, name

    def unknown(self, token: IrToken, what: str, known: Any) -> NoReturn:
        hint = did_you_mean(token.text, known)
        message = f"unknown {what} {token.text[:LONGEST_EXCERPT]}" + (f"; {hint}" if hint else "")
        expected = ", ".join(known) if len(known) <= MOST_LISTED else f"one of the {len(known)} {what}s in docs/ir.md"
        self.fail(token, message, expected, token.text[:LONGEST_EXCERPT])

    @contextmanager
    def refusing(self, token: IrToken, prefix: str = "") -> Iterator[None]:
        """Reports the refusal of a type rule at this token."""
        try:
            yield
        except TypeRuleError as error:
            self.fail(token, prefix + error.message, error.expected, error.found)
