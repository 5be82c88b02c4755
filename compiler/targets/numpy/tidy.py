"""Generated source, formatted for people: no long lines, one kind of quotes, no unused views."""

from __future__ import annotations

import io
import re
import textwrap
import tokenize
from collections import Counter

WIDTH = 120
INDENT = "    "
NOTE = "  # %"  # the start of the comment with a statement's node
TUPLE = re.compile(r"( *)(return|for) (.+?),?( in \w+:)?")


def tidy(lines: list[str]) -> list[str]:
    """The formatted lines of one generated function."""
    lines = double_quoted([line.rstrip() for line in lines])
    lines = without_unused(lines)
    return [part for line in lines for part in fitted(line)]


def double_quoted(lines: list[str]) -> list[str]:
    """Puts strings without quotes and escapes into double quotes."""
    result = list(lines)
    tokens = list(tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline))
    for token in reversed(tokens):  # from right to left, though a string keeps its length
        if token.type == tokenize.STRING and re.fullmatch(r"'[^'\"\\]*'", token.string):
            row, start = token.start
            line = result[row - 1]
            result[row - 1] = f'{line[:start]}"{token.string[1:-1]}"{line[start + len(token.string) :]}'
    return result


def without_unused(lines: list[str]) -> list[str]:
    """Drops views that are never used."""
    code = [line.split("  #")[0] for line in lines]
    counts = Counter(re.findall(r"\w+", "\n".join(code)))
    made = [re.match(r" +(\w+) = view\(", line) for line in code]
    return [line for line, match in zip(lines, made, strict=True) if not match or counts[match[1]] > 1]


def fitted(line: str) -> list[str]:
    """A statement with its comment, which moves above it if both are too long for a line; wrapped if still too long."""
    if len(line) <= WIDTH and not TUPLE.fullmatch(line):
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    if line.lstrip().startswith("#"):
        return comment_lines(line.strip(), indent)
    statement, mark, node = line.partition(NOTE)
    notes = comment_lines(f"# %{node}", indent) if mark else []
    return [*notes, *wrapped(plain_tuple(statement), indent)]


def comment_lines(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}#   ")


def plain_tuple(line: str) -> str:
    """`return a, b` and `for a, b in tiles:`, with parentheses if they are too long or have only one item."""
    match = TUPLE.fullmatch(line)
    if match is None:
        return line
    indent, word, items, rest = match[1], match[2], match[3], match[4] or ""
    single = f"{items}," in line and ", " not in items
    plain = f"{indent}{word} {items}{rest}"
    return f"{indent}{word} ({items}{',' if single else ''}){rest}" if single or len(plain) > WIDTH else plain


def wrapped(line: str, indent: str) -> list[str]:
    """A line, with the contents of its first brackets on separate lines if it is too long."""
    start = min((i for i in map(line.find, "([{") if i >= 0), default=-1)
    if len(line) <= WIDTH or start < 0:
        return [line]
    end = closing_bracket(line, start)
    inner = indent + INDENT
    filled = textwrap.wrap(
        line[start + 1 : end],
        WIDTH,
        initial_indent=inner,
        subsequent_indent=inner,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line[: start + 1], *filled, indent + line[end:]]


def closing_bracket(line: str, start: int) -> int:
    depth = 0
    for i in range(start, len(line)):
        depth += (line[i] in "([{") - (line[i] in ")]}")
        if depth == 0:
            return i
    return len(line)
