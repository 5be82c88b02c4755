"""Errors and warnings for the author of a model: positions in source text; how they are collected, sorted, printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TAB_WIDTH = 4
LARGEST_FILE = 1_000_000  # bytes of a file that is read again for an excerpt
LONGEST_EXCERPT = 160  # columns of a source line shown around the caret
ERROR, WARNING = "error", "warning"  # severities: a program with an error cannot run


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a source file. Lines and columns count characters from 1; the end is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Note:
    """A remark below an error or warning, such as where a shape comes from."""

    message: str
    span: Span | None = None


@dataclass(frozen=True)
class Diagnostic:
    """One error or warning: what is wrong and where, what was expected there and what was found."""

    message: str
    span: Span | None = None
    expected: str | None = None
    found: str | None = None
    notes: tuple[Note, ...] = ()
    severity: str = ERROR


class UserError(Exception):
    """Mistakes that the user can fix. The text is that of all diagnostics."""

    def __init__(self, diagnostics: Iterable[Diagnostic], sources: Mapping[str, str] | None = None):
        self.diagnostics = tuple(diagnostics)
        self.sources: Mapping[str, str] = sources or {}
        super().__init__(self.diagnostics)

    @classmethod
    def plain(
        cls, message: str, *, expected: str | None = None, found: str | None = None, notes: Iterable[Note] = ()
    ) -> UserError:
        """An error without a position in a file: about a flag, the data or a checkpoint."""
        return cls([Diagnostic(message, None, expected, found, tuple(notes))])

    def __str__(self) -> str:
        return "\n".join(render(diagnostic, self.sources) for diagnostic in self.diagnostics)


class Diagnostics:
    """The errors and warnings of one compilation; its length is the number of errors.

    `sources` maps file names to their text, for the excerpts.
    """

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self._found: dict[tuple[Span | None, str], Diagnostic] = {}
        self._warnings: dict[tuple[Span | None, str], Diagnostic] = {}

    def __len__(self) -> int:
        return len(self._found)

    def error(
        self,
        span: Span | None,
        message: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        notes: Iterable[Note] = (),
    ) -> None:
        """Records an error. The same message at the same place is kept once."""
        self._found.setdefault((span, message), Diagnostic(message, span, expected, found, tuple(notes)))

    def warn(
        self,
        span: Span | None,
        message: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        notes: Iterable[Note] = (),
    ) -> None:
        """Records a warning: the program runs, but probably not as its author means. The same one is kept once."""
        warning = Diagnostic(message, span, expected, found, tuple(notes), WARNING)
        self._warnings.setdefault((span, message), warning)

    def warnings(self) -> tuple[Diagnostic, ...]:
        """All warnings so far, in the order of errors."""
        return tuple(sorted(self._warnings.values(), key=_position))

    def warning_texts(self) -> tuple[str, ...]:
        return tuple(render(warning, self.sources) for warning in self.warnings())

    def raise_if_any(self) -> None:
        """Raises a UserError with all errors so far: first those without a position, then by file, line and column."""
        if self._found:
            raise UserError(sorted(self._found.values(), key=_position), dict(self.sources))


def render(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    """An error or warning as text: position, message, source line with a caret below, expected, found and notes."""
    span = diagnostic.span
    label = f"{diagnostic.severity}: {diagnostic.message}"
    lines = [f"{span}: {label}" if span else label]
    if span:
        lines += _excerpt(span, sources)
    for label, text in (("expected", diagnostic.expected), ("found", diagnostic.found)):
        if text is not None:
            lines.append(f"  {label}: {text}")
    for note in diagnostic.notes:
        lines.append(f"  note: {note.span}: {note.message}" if note.span else f"  note: {note.message}")
    return "\n".join(map(_printable, lines))


def _position(diagnostic: Diagnostic) -> tuple[str, int, int]:
    span = diagnostic.span
    return (span.file, span.line, span.column) if span else ("", 0, 0)


def _excerpt(span: Span, sources: Mapping[str, str]) -> list[str]:
    """The source line and the underline, in display columns. Of a span of several lines the first is shown."""
    source_lines = sources.get(span.file, "").split("\n")
    if span.line > len(source_lines) or span.file not in sources:
        return []
    source = source_lines[span.line - 1].rstrip("\r")
    stop = span.end_column - 1 if span.end_line == span.line else len(source)
    line = source.expandtabs(TAB_WIDTH)
    start = len(source[: span.column - 1].expandtabs(TAB_WIDTH))
    width = max(1, len(source[:stop].expandtabs(TAB_WIDTH)) - start)

    hidden = max(0, start - LONGEST_EXCERPT // 2) if len(line) > LONGEST_EXCERPT else 0
    shown = line[hidden : hidden + LONGEST_EXCERPT]
    start, width = start - hidden, min(width, max(1, hidden + len(shown) - start))
    shown = ("..." if hidden else "") + shown + ("..." if hidden + len(shown) < len(line) else "")
    start += 3 if hidden else 0
    number = str(span.line)
    return [f" {number} | {shown}", f" {' ' * len(number)} | {' ' * start}{'^' * width}"]


def excerpt_at(place: str) -> list[str]:
    """The line of a file at a place, file:line:column, with a caret; nothing if it cannot be read."""
    file, _, position = place.rpartition(":")
    file, _, line = file.rpartition(":")
    try:
        at = Span(file, int(line), int(position), int(line), int(position) + 1)
        path = Path(file)
        text = path.read_text(encoding="utf-8") if path.is_file() and path.stat().st_size <= LARGEST_FILE else ""
    except (OSError, ValueError):
        return []
    return [_printable(each) for each in _excerpt(at, {file: text})] if text else []


def _printable(line: str) -> str:
    """Nothing from a source file may control the terminal: control characters and lone surrogates become `?`."""
    return line if line.isprintable() else "".join(char if char.isprintable() else "?" for char in line)
