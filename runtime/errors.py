"""The exception that the runtime raises for problems that the user can fix: files, flags, data.

It has the form of the diagnostics of the compiler; the command line treats both alike. difflib is imported late, for a
quick start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

LONGEST_NAME = 200  # characters of a name or path that a message shows
# The data that a graph runs on, and what one run is called:
DATA_OF = {"train_step": ("training", "step"), "evaluate": ("test", "batch")}
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
        lines = [f"error: {self.message}", *(f"  {label}: {text}" for label, text in details if text)]
        return "\n".join(printable(line) for part in lines for line in part.split("\n"))

    def as_warning(self, hint: str | None = None) -> str:
        """The same as a warning, with a hint on what nnc does instead."""
        text = str(RuntimeUserError(self.message, expected=self.expected, found=self.found, hint=hint))
        return text.replace("error", "warning", 1)


class IndexOutside(RuntimeUserError):
    """An index that a step computed is outside its table.

    `place` is the file:line:column of the lookup in the model and `layer` the path of its layer; both may be unknown.
    `example` counts the examples of the batch from 0; None if the index does not belong to one of them. Whoever ran the
    step adds the `row` of the data, and in `when` the step; the command line adds the `excerpt` of the model.
    """

    def __init__(self, value: int, size: int, example: int | None = None, place: str = "", layer: str = "") -> None:
        super().__init__("an index is outside its table", expected=f"0 … {size - 1}, the rows of the table")
        self.value, self.size, self.example = value, size, example
        self.place, self.layer = place, layer
        self.row, self.when = "", ""
        self.row_number: int | None = None
        self.excerpt: Sequence[str] = ()

    def of_step(self, graph: str, rows: Any, step: int, steps: int) -> None:
        """Adds the step of a graph, counted from 1, and the row of the data if an example of its batch is to blame.

        `rows` are the rows of the batch, in order.
        """
        data, what = DATA_OF.get(graph, ("given", "batch"))
        self.when = f"{what} {step} of {steps}"
        if self.example is not None and self.example < len(rows):
            self.row_number = int(rows[self.example])
            self.row = f"row {self.row_number} of the {data} data"

    def of_part(self, part: str, place: Callable[[int], int]) -> None:
        """Names the part of a data set, "validation", and the row as it is in the file, which `place` gives."""
        if self.row_number is not None:
            self.row = f"row {place(self.row_number)} of the {part} data"

    def __str__(self) -> str:
        self.found = str(self.value) + (f", in {self.row}" if self.row else "")
        first, *details = super().__str__().split("\n")
        inside = ", ".join(filter(None, [self.layer and f"in {self.layer}", self.when]))
        label = f"{self.place}: {first}" if self.place else first
        lines = [label, *self.excerpt, *details[:2], *([f"  note: {inside}"] if inside else []), *details[2:]]
        return "\n".join(map(printable, lines))


def shortened(items: Sequence[str], most: int) -> str:
    """`a, b and 3 more`"""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if items[most:] else "")


def quoted(name: str) -> str:
    """A name or path from outside in double quotes, cut to a fixed length, without terminal control characters."""
    shown = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "…"
    return f'"{printable(shown)}"'


def printable(line: str) -> str:
    """A line of a message without terminal control characters: these are shown as escapes."""
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


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
