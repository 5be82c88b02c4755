"""Text to syntax tree, one declaration at a time.

A file is cut where lines begin a declaration (`layer Dense(`), and each piece is parsed on its own, so that a syntax
error never reaches into the next declaration. After an error, the statement around it is blanked and the piece is
parsed again: all errors of a file are reported in one run, each once.
"""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise
from os import PathLike
from pathlib import Path
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedToken
from lark.lexer import Lexer

from compiler.diagnostics import Diagnostics, Note, Span
from compiler.language import tree_builder
from compiler.language.lexer import DECLARATION_KEYWORDS, KEYWORDS, Token, tokenize
from compiler.language.recovery import Unexpected, erasable, explain, unclosed_brackets
from compiler.language.syntax import Argument, Expression, Function, Import, Name, Program, SyntaxNode, Train, children
from compiler.language.tree_builder import TreeError, cover

LARGEST_FILE = 1_000_000  # bytes
MOST_ERRORS = 20  # reported for a file
MOST_DECLARATIONS = 10_000
DEEPEST_TREE = 200  # levels of a declaration: later stages recurse over trees, Python allows some 1,000 calls
LONGEST_REPAIR = 20_000  # tokens; in a longer declaration only the first error is reported

# The lines that begin a declaration, without indentation. They are found before there are tokens, whatever is wrong
# above them: no other line begins with such a word and a name, or with `import` and a string.
HEAD = re.compile(
    rf'^(?:(?:{"|".join(DECLARATION_KEYWORDS)})[ \t]+(?!(?:{"|".join(KEYWORDS)})\b)[A-Za-z_]|import[ \t]*")',
    re.MULTILINE,
)
# Nothing may reorder or hide text: no control characters but tab and newline, and no bidirectional controls.
FORBIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def parse(text: str, file: str, diagnostics: Diagnostics) -> Program:
    """The tree of a file. Errors go to the diagnostics; of a declaration with errors, the valid parts are kept."""
    text = _checked(text, file, diagnostics)
    parser = _Parser(text, file, diagnostics)
    cuts = sorted({0, len(text), *(head.start() for head in HEAD.finditer(text))})
    line = 1
    declarations: list[SyntaxNode] = []
    for number, (start, stop) in enumerate(pairwise(cuts)):
        if number > MOST_DECLARATIONS:
            message = f"more than {MOST_DECLARATIONS} declarations in a file"
            diagnostics.error(Span(file, line, 1, line, 2), message)
            break
        declarations += parser.declarations(start, stop, line)
        line += text.count("\n", start, stop)

    def of_type(node_type: type) -> tuple[Any, ...]:
        return tuple(node for node in declarations if isinstance(node, node_type))

    span = Span(file, 1, 1, line, len(text) - text.rfind("\n"))
    return Program(file, of_type(Import), of_type(Function), of_type(Train), span=span)


def parse_expression(text: str, file: str, diagnostics: Diagnostics) -> Expression:
    """The tree of a single expression, such as the value of a flag. Raises UserError if it has errors."""
    text = _checked(text, file, diagnostics)
    return _Parser(text, file, diagnostics).expression()


def read_source(path: str | PathLike[str], diagnostics: Diagnostics, largest: int = LARGEST_FILE) -> str | None:
    """The text of a file, or None with an error recorded: not a readable, regular UTF-8 file, or too large."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            diagnostics.error(None, f"cannot read {path}", expected="a file of model source", found=kind)
            return None
        with open(path, "rb") as source:
            content = source.read(largest + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL or a lone surrogate
        reason = error.strerror if isinstance(error, OSError) else str(error)
        diagnostics.error(None, f"cannot read {path}", found=(reason or str(error)).lower())
        return None
    if len(content) > largest:
        diagnostics.error(None, f"{path} is too large", expected=f"at most {largest} bytes")
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        span = Span(str(path), line, column, line, column + 1)
        diagnostics.error(span, "the file is not UTF-8", found=f"byte 0x{content[error.start]:02x}")
        return None


def _checked(text: str, file: str, diagnostics: Diagnostics) -> str:
    """The text with `\n` as line ends and without forbidden characters, which are reported."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if len(text) > LARGEST_FILE:
        diagnostics.error(
            None, f"{file} is too large", expected=f"at most {LARGEST_FILE} characters", found=f"{len(text)}"
        )
        text = ""
    diagnostics.sources[file] = text
    forbidden = list(islice(FORBIDDEN.finditer(text), MOST_ERRORS))
    for match in forbidden:
        position = match.start()
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
        span = Span(file, line, column, line, column + 1)
        diagnostics.error(span, "control character in the source", found=f"U+{ord(match[0]):04X}")
    return FORBIDDEN.sub(" ", text) if forbidden else text


class _NoLexer(Lexer):
    """Tokens come from `tokenize` and are fed to the parser one by one."""

    def __init__(self, lexer_conf: Any):
        pass

    def lex(self, lexer_state: Any, parser_state: Any) -> Any:
        return iter(())


@cache
def _grammar() -> Lark:
    actions: Any = tree_builder
    return Lark(
        Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8"),
        parser="lalr",
        lexer=_NoLexer,
        start=["program", "expression"],
        transformer=actions,
        keep_all_tokens=True,
        maybe_placeholders=False,
    )


def _run(rule: str, tokens: list[Token], end: Token) -> tuple[Any, Unexpected | None]:
    """The tree that a rule of the grammar makes of the tokens, and the error that stopped it."""
    interactive = _grammar().parse_interactive(start=rule)
    state: Any = interactive.parser_state
    stream = [*tokens, end]
    tree = None
    try:
        for token in stream:
            tree = state.feed_token(token, token is end)
        return tree, None
    except (UnexpectedToken, TreeError) as error:
        index = next(index for index, token in enumerate(stream) if token is error.token)
        if isinstance(error, TreeError):
            return None, Unexpected(index, stream[index])
        state.value_stack = [None] * len(state.value_stack)  # no longer needed, and older versions of Lark copy them
        return None, Unexpected(index, stream[index], frozenset(interactive.accepts()))


class _Parser:
    """Parses the pieces of one file; `text` loses the statements that have errors."""

    def __init__(self, text: str, file: str, diagnostics: Diagnostics):
        self.text, self.file, self.diagnostics = text, file, diagnostics
        self.errors = 0

    def expression(self) -> Expression:
        tokens = tokenize(self.text, self.file, 0, len(self.text), 1, in_expression=True)
        end = self._end(tokens, len(self.text))
        tree, error = _run("expression", tokens, end)
        if error:
            self._report(error, tokens, end)
        else:
            self._too_deep(tree)
        self.diagnostics.raise_if_any()
        return tree

    def declarations(self, start: int, stop: int, line: int) -> list[SyntaxNode]:
        """The declarations in text[start:stop]: one, unless several share a line. Each error blanks some text."""
        original = tokens = tokenize(self.text, self.file, start, stop, line)
        end = self._end(tokens, stop)
        damaged = False
        while tokens and self.errors < MOST_ERRORS:
            declarations, error = _run("program", tokens, end)
            if not error:
                if len(tokens) > DEEPEST_TREE and any(map(self._too_deep, declarations)):
                    break
                return list(map(_damaged, declarations)) if damaged else declarations
            self._report(error, tokens, end)
            erased = erasable(tokens, error.index)
            if not erased or len(tokens) > LONGEST_REPAIR:
                break
            followed = erased.stop < len(tokens)  # nothing follows text that is erased between declarations
            damaged = damaged or followed
            self._blank(tokens[erased.start].start, tokens[erased.stop].start if followed else stop)
            tokens = tokenize(self.text, self.file, start, stop, line)
        return _head_only(original, end) if tokens else []

    def _blank(self, start: int, stop: int) -> None:
        blanks = re.sub(r"[^\n]", " ", self.text[start:stop])
        self.text = self.text[:start] + blanks + self.text[stop:]

    def _end(self, tokens: list[Token], stop: int) -> Token:
        """The token after the last one."""
        last = tokens[-1].span if tokens else Span(self.file, 1, 1, 1, 1)
        span = Span(self.file, last.end_line, last.end_column, last.end_line, last.end_column + 1)
        return Token("$END", "the end" if stop == len(self.text) else "the next declaration", span, stop)

    def _report(self, error: Unexpected, tokens: list[Token], end: Token) -> None:
        token = error.token
        problem = token.problem or explain(error, tokens)
        notes = [Note(problem.hint)] if problem.hint else []
        for bracket in unclosed_brackets(tokens[: error.index])[-1:]:
            if token is end or (bracket.type != "LBRACE" and bracket.span.line < token.span.line):
                notes.append(Note(f"`{bracket.text}` is opened here", bracket.span))
        self._error(token.span, problem.message, expected=problem.expected, found=problem.found, notes=notes)

    def _error(self, span: Span, message: str, **details: Any) -> None:
        self.diagnostics.error(span, message, **details)
        self.errors += 1
        if self.errors == MOST_ERRORS:
            self.diagnostics.error(span, f"{MOST_ERRORS} errors: the rest of the file is not checked")

    def _too_deep(self, declaration: SyntaxNode) -> bool:
        """Whether the tree of a declaration has too many levels, which is reported. Does not recurse itself."""
        pending = [(declaration, 1)]
        while pending:
            node, level = pending.pop()
            if level > DEEPEST_TREE:
                expected = f"at most {DEEPEST_TREE} levels; name parts of it in separate statements"
                self._error(node.span, "expression or statement nests too deeply", expected=expected)
                return True
            below = level if isinstance(node, Argument) else level + 1
            pending += [(child, below) for child in children(node)][::-1]  # the first one in the source is reported
        return False


def _damaged(declaration: SyntaxNode) -> SyntaxNode:
    return replace(declaration, damaged=True) if isinstance(declaration, Function | Train) else declaration


def _head_only(tokens: list[Token], end: Token) -> list[SyntaxNode]:
    """The usable part of a declaration that is given up: its head, or its kind and name."""
    brace = next((index for index, token in enumerate(tokens[:DEEPEST_TREE]) if token.type == "LBRACE"), None)
    if brace is not None:
        closed = [*tokens[: brace + 1], replace(tokens[brace], type="RBRACE")]
        declarations, error = _run("program", closed, end)
        if not error:
            return list(map(_damaged, declarations))
    match [(token.type, token) for token in tokens[:2]]:
        case [("KIND", kind), ("NAME", name)]:
            return [Function(kind.text, Name(name.text, span=name.span), ((),), (), True, span=cover(kind, name))]
        case [("TRAIN", keyword), ("NAME", name)]:
            return [Train(Name(name.text, span=name.span), (), True, span=cover(keyword, name))]
        case [("IMPORT", keyword), ("STRING", path)]:
            return [tree_builder.import_file([keyword, path])]
    return []
