"""After a syntax error: the message, and the tokens to leave out so that parsing can continue."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.language.lexer import DECLARATION_KEYWORDS, KEYWORDS, PUNCTUATION, Problem, Token
from compiler.language.syntax import VARIABLE_KINDS
from runtime.errors import did_you_mean

STATEMENT_KEYWORDS = {"RETURN", "IF", "FOR", "VARIABLE"}
BLOCK_KEYWORDS = {"IF", "ELSE", "FOR"}
STATEMENT_BOUNDARIES = {"END", "LBRACE", "RBRACE"}
OPENERS, CLOSERS = {"LPAR", "LSQB", "LBRACE"}, {"RPAR", "RSQB", "RBRACE"}

OPERAND_CONTINUES = {"OPERATOR", "MINUS", "LPAR", "LSQB"}
EXPRESSION_STARTS = {"NAME", "NUMBER", "STRING", "TRUE", "FALSE", "MINUS", "NOT", "LPAR", "LSQB"}
# Words for accepted types, in order: if all types of an entry are accepted, its words replace them.
NAMES_OF_TYPES: tuple[tuple[str | None, set[str]], ...] = (
    (None, OPERAND_CONTINUES),  # always possible, never missing
    ("a statement", EXPRESSION_STARTS | STATEMENT_KEYWORDS),
    ("an expression", EXPRESSION_STARTS),
    ("a declaration", set(DECLARATION_KEYWORDS.values())),
    ("end of statement", {"END", "RBRACE"}),
    ("end of statement", {"END"}),
    (None, {"$END"}),
    ("a name", {"NAME"}),
    ("a string", {"STRING"}),
)
LITERALS = {token_type: f"`{text}`" for text, token_type in (PUNCTUATION | KEYWORDS).items()}

LIKENESS_OF_KEYWORDS = 0.75  # `retrun` is like `return`, `foo` is not like `for`
WORDS_OF_OTHER_LANGUAGES = {
    "elif": "write `else if`",
    "def": "functions begin with `fn`, layers with `layer`",
    "let": "an assignment has no keyword: `x = 1`",
    "while": "loops are `for x in list`, or a `scan` at run time",
}


@dataclass(frozen=True, slots=True)
class Unexpected:
    """The parser stopped at tokens[index], or after the last token, where it accepts other types of tokens."""

    index: int
    token: Token
    accepted: frozenset[str] = frozenset()


def explain(error: Unexpected, tokens: list[Token]) -> Problem:
    """The error as a message."""
    token = error.token
    left, words = set(error.accepted), []
    if token.type == "$END" and "RBRACE" in left:
        left = {"RBRACE"}
    for name, types in NAMES_OF_TYPES:
        if types <= left:
            left -= types
            words += [name] if name else []
    words += sorted(LITERALS[token_type] for token_type in left if token_type in LITERALS)
    *others, last = words or ["the end"]
    expected = f"{', '.join(others)} or {last}" if others else last
    found = token.text if token.type == "$END" else "end of line" if token.text == "\n" else f"`{token.text}`"
    return Problem("syntax error", expected, found, _hint(error.index, tokens))


def _hint(index: int, tokens: list[Token]) -> str | None:
    """The meaning of a word from another language, or of a misspelt keyword at the start of a statement."""
    keywords = [*KEYWORDS, *DECLARATION_KEYWORDS, *VARIABLE_KINDS]
    for position in (index - 1, index):
        begins = position == 0 or (position > 0 and tokens[position - 1].type in STATEMENT_BOUNDARIES)
        if begins and position < len(tokens) and tokens[position].type == "NAME":
            word = tokens[position].text
            return WORDS_OF_OTHER_LANGUAGES.get(word) or did_you_mean(word, keywords, LIKENESS_OF_KEYWORDS) or None
    if index < len(tokens) and tokens[index].text == "=":
        return "`=` assigns to names, `==` compares"
    return None


def unclosed_brackets(tokens: list[Token]) -> list[Token]:
    """The brackets that the tokens leave open, outermost first."""
    opened: list[Token] = []
    for token in tokens:
        if token.type in OPENERS:
            opened.append(token)
        elif token.type in CLOSERS and opened:
            while token.type == "RBRACE" and len(opened) > 1 and opened[-1].type != "LBRACE":
                opened.pop()
            opened.pop()
    return opened


def erasable(tokens: list[Token], index: int) -> range | None:
    """The tokens of the statement around tokens[index], or None if the declaration cannot be parsed without it."""
    first = index
    while first and tokens[first - 1].type not in STATEMENT_BOUNDARIES:
        first -= 1
    if not unclosed_brackets(tokens[:first]):  # the head of the declaration, or something after its end
        return range(first, len(tokens)) if first else None
    last = _statement_end(tokens, first, index)
    following = tokens[last].text if last < len(tokens) else ""
    if first == last or following == "{" or any(token.type in BLOCK_KEYWORDS for token in tokens[first:last]):
        return None
    return range(first, last + 1 if following == ";" else last)


def _statement_end(tokens: list[Token], first: int, index: int) -> int:
    """The end of the statement that begins at `first` and has an error at `index`.

    Line ends inside brackets are not tokens. If the statement leaves a bracket open, the lines after the error, or
    from the error on if it begins a line, are treated as separate statements, unless they continue with `|>`.
    """
    if index == len(tokens):
        return index
    begins_line = first < index and tokens[index - 1].span.line < tokens[index].span.line
    if begins_line and tokens[index].type in STATEMENT_KEYWORDS:
        return index
    depth, after = len(unclosed_brackets(tokens[first:index])), index
    while depth and after < len(tokens) and tokens[after].type not in STATEMENT_BOUNDARIES | STATEMENT_KEYWORDS:
        depth += (tokens[after].type in OPENERS) - (tokens[after].type in CLOSERS)
        after += 1
    if depth:
        if begins_line:
            return index
        after = index
    line = tokens[index].span.line
    while after < len(tokens) and tokens[after].type not in STATEMENT_BOUNDARIES:
        if depth and tokens[after].span.line > line:
            if tokens[after].text != "|>":
                break
            line = tokens[after].span.line
        after += 1
    return after
