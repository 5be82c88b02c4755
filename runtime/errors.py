"""The exception that the runtime raises for problems that the user can fix: files, flags, data.

It has the form of the diagnostics of the compiler; the command line treats both alike. difflib is imported late, for a
quick start.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_NAME = 200  # characters of a name or path that a message shows


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


def quoted(name: str) -> str:
    """A name or path from outside in double quotes, cut to a fixed length, without terminal control characters."""
    shown = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown) + '"'


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A question with the candidate that is most similar to `name`, or "" if none is."""
    import difflib

    close = difflib.get_close_matches(name, list(candidates), n=1)
    return f"did you mean {quoted(close[0])}?" if close else ""
