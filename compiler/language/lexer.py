"""Text to tokens, for the grammar in grammar.lark. Line ends that do not end a statement never become tokens.

Text that is not a token becomes a token of type ERROR with its problem, so that the parser reports lexical and syntax
errors alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

from compiler.diagnostics import Span
from compiler.language.syntax import FUNCTION_KINDS, VARIABLE_KINDS

DEEPEST_NESTING = 100  # open brackets
LONGEST_TOKEN = 4096  # characters
LONGEST_DECLARATION = 100_000  # tokens
LONGEST_INTEGER = 18  # digits: every value fits into 64 bits

TOKENS = re.compile(
    r"""
      (?P<NEWLINE> (?:\#[^\n]*)?\n+ )
    | (?P<COMMENT> \#[^\n]* )
    | (?P<NAME>    [A-Za-z_][A-Za-z0-9_]* )
    | (?P<NUMBER>  [0-9][A-Za-z0-9_.]* (?: (?<=[eE])[+-][0-9][A-Za-z0-9_.]* )? )
    | (?P<STRING>  "[^"\\\n]*(?:\\.[^"\\\n]*)*" )
    | (?P<SYMBOL>  \|> | \*\* | // | [=!<>]= | \.\.\. | [-+*/%@<>=()\[\]{},:;] )
    | (?P<BAD>     "[^\n]* | [^\x00-\x7f]+ | [^ \t] )
    """,
    re.VERBOSE,
)
FLOAT = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}

# Types of tokens by their text; the names of literals are those that Lark gives them.
PUNCTUATION = {"(": "LPAR", ")": "RPAR", "[": "LSQB", "]": "RSQB", "{": "LBRACE", "}": "RBRACE", ",": "COMMA"}
PUNCTUATION |= {":": "COLON", "=": "EQUAL", "-": "MINUS", "...": "ELLIPSIS", ";": "END"}
KEYWORDS = {word: word.upper() for word in ("return", "if", "else", "for", "in", "not", "true", "false")}
KEYWORDS |= {"and": "OPERATOR", "or": "OPERATOR"}
KEYWORDS |= {kind: "VARIABLE" for kind in VARIABLE_KINDS if kind != "total"}
# A common name, so it is a keyword only at the start of a statement, if a name follows: `total hits: f32[] = …`
TOTAL = re.compile(rf"total(?=[ \t]+(?!(?:{'|'.join(KEYWORDS)})\b)[A-Za-z_])")
# These are keywords outside all brackets only: inside a declaration they are names, as in `scan(cell, x)`.
DECLARATION_KEYWORDS = {"train": "TRAIN", "import": "IMPORT"} | dict.fromkeys(FUNCTION_KINDS, "KIND")

# A line end after or before one of these does not end a statement. The start of the text counts as END, too.
CONTINUES_AFTER = {"OPERATOR", "MINUS", "NOT", "COMMA", "EQUAL", "LBRACE", "END"}
CONTINUES_BEFORE = {"|>", "else"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a token."""

    message: str
    expected: str | None = None
    found: str | None = None
    hint: str | None = None


@dataclass(slots=True)
class Token:
    """A token; `start` is its offset in the text."""

    type: str
    text: str
    span: Span
    start: int
    problem: Problem | None = None


def tokenize(text: str, file: str, start: int, stop: int, line: int, *, in_expression: bool = False) -> list[Token]:
    """The tokens of text[start:stop], where `start` is on the given line. Takes linear time."""
    tokens: list[Token] = []
    brackets: list[str] = ["{"] if in_expression else []
    token_type = "END"
    newline: int | None = None  # offset of a line end that may end a statement
    line_start = text.rfind("\n", 0, start) + 1
    for match in TOKENS.finditer(text, start, stop):
        group, begin, word = match.lastgroup or "BAD", match.start(), match[0]
        if group == "NEWLINE":
            newline = begin if newline is None else newline
            line += word.count("\n")
            line_start = match.end()
            continue
        if group == "COMMENT":
            continue
        if newline is not None:
            if token_type not in CONTINUES_AFTER and word not in CONTINUES_BEFORE and brackets[-1:] in ([], ["{"]):
                last = tokens[-1].span
                span = Span(file, last.line, last.end_column, last.line, last.end_column + 1)
                tokens.append(Token("END", "\n", span, newline))
            newline = None
        token_type, problem = _classify(group, word, brackets)
        if word == "total" and tokens and tokens[-1].type in ("END", "LBRACE") and TOTAL.match(text, begin, stop):
            token_type = "VARIABLE"
        if len(tokens) >= LONGEST_DECLARATION:
            problem = Problem("declaration too long", f"at most {LONGEST_DECLARATION} tokens")
        column = begin - line_start + 1
        span = Span(file, line, column, line, column + len(word))
        tokens.append(Token("ERROR" if problem else token_type, word, span, begin, problem))
        if len(tokens) > LONGEST_DECLARATION:
            break
    return tokens


def _classify(group: str, word: str, brackets: list[str]) -> tuple[str, Problem | None]:
    """The type of a token and what is wrong with it. Keeps the stack of open brackets."""
    if group == "NAME":
        if not brackets and word in DECLARATION_KEYWORDS:
            return DECLARATION_KEYWORDS[word], None
        return KEYWORDS.get(word, "NAME"), _too_long(word) if len(word) > LONGEST_TOKEN else None
    if group != "SYMBOL":
        return group, PROBLEM_OF[group](word)
    if word in ("(", "[", "{"):
        brackets.append(word)
        if len(brackets) > DEEPEST_NESTING:
            return "ERROR", Problem("brackets nest too deeply", f"at most {DEEPEST_NESTING} levels")
    elif word in (")", "]", "}"):
        _close(brackets, word)
    return PUNCTUATION.get(word, "OPERATOR"), None


def _close(brackets: list[str], closer: str) -> None:
    """Removes the bracket that is closed. Only `}` closes `{`; the parser reports other mismatches."""
    while closer == "}" and brackets and brackets[-1] != "{":
        brackets.pop()
    if brackets and (closer == "}") == (brackets[-1] == "{"):
        brackets.pop()


def _too_long(word: str) -> Problem:
    return Problem("token too long", f"at most {LONGEST_TOKEN} characters", f"{len(word)} characters")


def _number_problem(word: str) -> Problem | None:
    if word.isdigit() and len(word) <= LONGEST_INTEGER:
        return None
    if len(word) > LONGEST_TOKEN:
        return _too_long(word)
    if word.isdigit():
        return Problem("integer too long", f"at most {LONGEST_INTEGER} digits", f"{len(word)} digits")
    if not FLOAT.fullmatch(word):
        return Problem("malformed number", "a number such as `1`, `2.5` or `1e-3`", f"`{word}`")
    if not isfinite(float(word)):
        return Problem("number too large", "a number below 1.8e308", f"`{word}`")
    return None


def _string_problem(word: str) -> Problem | None:
    if len(word) > LONGEST_TOKEN:
        return _too_long(word)
    for escape in ESCAPE.finditer(word):
        if escape[1] not in ESCAPES:
            return Problem("unknown escape in a string", r"one of `\"`, `\\`, `\n`, `\t`", f"`{escape[0]}`")
    return None


def _bad_character_problem(word: str) -> Problem:
    if word.startswith('"'):
        return Problem("the string is not closed", 'a closing `"` on the same line')
    if not word.isascii():
        shown = f"`{word[0]}` (U+{ord(word[0]):04X})"
        return Problem("not an ASCII character, outside strings and comments", "letters, digits or `_`", shown)
    return Problem("unexpected character", BAD_CHARACTERS.get(word), f"`{word}`")


BAD_CHARACTERS = {
    "'": "a string in double quotes",
    "!": "`not`, or `!=` to compare",
    "&": "`and`",
    "|": "`or`, or `|>` to apply a function",
    "^": "`**` for a power",
    ".": "a name without dots; a number starts with a digit",
    "\\": "no line continuation: a line continues inside brackets and after an operator",
}
PROBLEM_OF = {"NUMBER": _number_problem, "STRING": _string_problem, "BAD": _bad_character_problem}
