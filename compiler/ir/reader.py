"""Reads IR text back. Types are inferred again from each op's rule and must be the ones written down."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from compiler.ir.builder import Builder, literal
from compiler.ir.graph import Graph, Module, Origin, Value
from compiler.ir.types import DTYPES, Batch, TensorType, TypeRuleError, parse_type
from compiler.ops import OPS

TOKENS = re.compile(
    r"""(?P<comment>//[^\n]*) | (?P<space>\s+) | (?P<value>%[\w.]+)
      | (?P<type>(?:f32|f64|i32|i64|u8|bool)\[[^\]\n]*\])
      | (?P<number>-?(?:\d+\*B\b|(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan)\b)) | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<name>[\w.]+) | (?P<mark>[(){}\[\],=:])""",
    re.VERBOSE,
)
ORIGIN = re.compile(r"// (.+):(\d+):(\d+)(?: ((?!\(backward\))\S+))?( \(backward\))?$")


class IRSyntaxError(Exception):
    """IR text that cannot be read; `line` counts from 1."""

    def __init__(self, line: int, message: str):
        super().__init__(f"line {line}: {message}")
        self.line, self.message = line, message


def read_module(text: str) -> Module:
    """Reads what `printer.print_module` wrote; raises IRSyntaxError."""
    reader = Reader(text)
    module: Module = {}
    while reader.kind != "end":
        graph = reader.graph()
        if graph.name in module:
            reader.fail(f"a second graph named {graph.name}")
        module[graph.name] = graph
    return module


class Reader:
    """A recursive-descent parser over a list of tokens; recursion is as deep as bodies nest."""

    def __init__(self, text: str):
        self.tokens: list[tuple[str, str, int]] = []
        self.origins: dict[int, Origin] = {}
        self.position = 0
        self.tokenize(text)

    def tokenize(self, text: str) -> None:
        start, line = 0, 1
        while start < len(text):
            match = TOKENS.match(text, start)
            if match is None:
                raise IRSyntaxError(line, f"unexpected character {text[start]!r}")
            kind, token = str(match.lastgroup), match[0]
            if kind == "comment" and (origin := ORIGIN.match(token)):
                file, row, column, path, backward = origin.groups()
                self.origins[line] = Origin(file, int(row), int(column), path or "", bool(backward))
            elif kind not in ("space", "comment"):
                self.tokens.append((kind, token, line))
            line += token.count("\n")
            start = match.end()
        self.tokens.append(("end", "end of text", line))

    @property
    def kind(self) -> str:
        return self.tokens[self.position][0]

    @property
    def line(self) -> int:
        return self.tokens[self.position][2]

    def fail(self, message: str, line: int | None = None) -> NoReturn:
        raise IRSyntaxError(line or self.line, message)

    def take(self, kind: str, text: str | None = None) -> str:
        found_kind, found, _ = self.tokens[self.position]
        if found_kind != kind or text not in (None, found):
            self.fail(f"expected {text or kind}, found {found!r}")
        self.position += 1
        return found

    def accept(self, text: str) -> bool:
        if self.tokens[self.position][:2] != ("mark", text):
            return False
        self.position += 1
        return True

    def graph(self) -> Graph:
        self.take("name", "graph")
        graph = Graph(self.take("name"))
        builder, scope = Builder(graph), {}
        self.take("mark", "(")
        while not self.accept(")"):
            name = self.take("value")
            self.take("mark", ":")
            type = parse_type(self.take("type"))
            kind = self.take("name") if self.kind == "name" else ""
            scope[name] = builder.input(name[1:], type, kind)
            self.accept(",")
        self.take("mark", "{")
        while self.kind == "value":
            self.node(builder, scope)
        self.take("name", "return")
        while not self.accept("}"):
            name = self.take("name") if self.kind == "name" else self.take("number")
            self.take("mark", "=")
            graph.outputs[name] = self.operand(scope)
            self.accept(",")
        return graph

    def node(self, builder: Builder, scope: dict[str, Value]) -> None:
        line = self.line
        declared: list[tuple[str, TensorType]] = []
        while not declared or self.accept(","):
            name = self.take("value")
            self.take("mark", ":")
            declared.append((name, parse_type(self.take("type"))))
        self.take("mark", "=")
        op = self.take("name")
        if op not in OPS:
            self.fail(f"unknown op {op}")
        operands, attributes = self.arguments(scope)
        builder.origin = self.origins.get(self.tokens[self.position - 1][2])
        try:
            builder.emit(op, operands, attributes)
        except TypeRuleError as error:
            self.fail(f"{op}: {error}", line)
        results = builder.graph.nodes[-1].results
        if [value.type for value in results] != [type for _, type in declared]:
            self.fail(
                f"{op}: written as {declared[0][1]}, the rule gives {', '.join(str(v.type) for v in results)}", line
            )
        scope.update(zip((name for name, _ in declared), results, strict=True))

    def arguments(self, scope: dict[str, Value]) -> tuple[list[Value], dict[str, Any]]:
        operands: list[Value] = []
        attributes: dict[str, Any] = {}
        self.take("mark", "(")
        while not self.accept(")"):
            if self.kind == "name" and self.tokens[self.position + 1][1] == "=":
                name = self.take("name")
                self.take("mark", "=")
                attributes[name] = self.attribute()
            else:
                operands.append(self.operand(scope))
            self.accept(",")
        return operands, attributes

    def operand(self, scope: dict[str, Value]) -> Value:
        if self.kind == "value":
            name = self.take("value")
            if name not in scope:
                self.fail(f"{name} is not defined before this line")
            return scope[name]
        value = self.attribute()
        if self.accept(":"):
            dtype = self.take("name")
            if dtype not in DTYPES:
                self.fail(f"unknown dtype {dtype}")
            return literal(value, dtype)
        return literal(value, {float: "f32", int: "i32", bool: "bool"}[type(value)])

    def attribute(self) -> Any:
        if self.accept("["):
            items = []
            while not self.accept("]"):
                items.append(self.attribute())
                self.accept(",")
            return tuple(items)
        kind, text, _ = self.tokens[self.position]
        if kind == "name" and text == "graph":
            return self.graph()
        self.position += 1
        if kind == "string":
            return json.loads(text)
        if text == "B" or text.endswith("*B"):
            return Batch(int(text[:-2] or 1) if text != "B" else 1)
        if text in ("true", "false"):
            return text == "true"
        if kind != "number":
            self.fail(f"expected an attribute, found {text!r}")
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
