"""The exception that the runtime raises for problems that the user can fix: files, flags, data.

It has the form of the diagnostics of the compiler; the command line treats both alike. difflib is imported late, for a
quick start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LONGEST_NAME = 200  # characters of a name or path that a message shows
LONGEST_GUESSED_NAME = 64  # characters: comparing names takes quadratic time


class RuntimeUserError(Exception):
    """A problem outside the program. `str()` is the whole message, ready to be shown:

    error: message
      expected: …
      found: …
      hint: …
    """

    def __init__(
        self, message: str, *, expected: str | None = None, found: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        details = (("expected", self.expected), ("found", self.found), ("hint", self.hint))
        return "\n".join([f"error: {self.message}", *(f"  {label}: {text}" for label, text in details if text)])

    def as_warning(self, hint: str | None = None) -> str:
        """The same as a warning, with a hint on what nnc does instead."""
        text = str(RuntimeUserError(self.message, expected=self.expected, found=self.found, hint=hint))
        return text.replace("error", "warning", 1)


def shortened(items: Sequence[str], most: int) -> str:
    """`a, b and 3 more`"""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if items[most:] else "")


def quoted(name: str) -> str:
    """A name or path from outside in double quotes, cut to a fixed length, without terminal control characters."""
    shown = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown) + '"'


def did_you_mean(
    name: str, candidates: Iterable[str], likeness: float = 0.6, longest: int = LONGEST_GUESSED_NAME
) -> str:
    """`did you mean "Dense"?` for the candidate closest to the name, ignoring case, or an empty string.

    The likeness is between 0 and 1 (equal); candidates below it are not suggested. For a name with more than `longest`
    characters nothing is suggested.
    """
    from difflib import get_close_matches  # only when something is wrong: it would slow down every start

    if len(name) > longest:
        return ""
    by_lower_case = {candidate.lower(): candidate for candidate in sorted(candidates, reverse=True)}
    matches = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=likeness)
    return f"did you mean {quoted(by_lower_case[matches[0]])}?" if matches else ""
