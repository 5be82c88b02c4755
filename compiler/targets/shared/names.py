"""Identifiers for generated source, which are valid and close to the model's names, and comments."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable

from compiler.ir.graph import Origin

# Names that generated source itself uses, or that would hide a name of Python.
RESERVED = {
    *("np", "kernels", "view", "run_tiles", "tiles", "arena", "batch", "B", "lane", "i", "run", "clock", "tick"),
    *("probe", "operands", "ranges_of", "selected_ranges"),
    *dir(builtins),
    *keyword.kwlist,
    *keyword.softkwlist,
}
NUMBERED = re.compile(r"(region|scan)_\d+(_tiles?|_steps)?")  # functions, and their arguments


class Names:
    """Gives every tensor a unique identifier: `dense_1.w` becomes `dense_1_w`."""

    def __init__(self, reserved: Iterable[str] = (), pattern: re.Pattern[str] = NUMBERED) -> None:
        """Names are none of the reserved ones, and do not match the pattern."""
        self.pattern = pattern
        self.used: set[str] = {*RESERVED, *reserved}
        self.counts: dict[str, int] = {}  # how often each name was requested

    def fresh(self, wanted: str) -> str:
        """The wanted name as an ASCII identifier, followed by an underscore or a number if it is already used."""
        name = re.sub(r"[^A-Za-z0-9_]", "_", wanted)
        name = found = name if re.match(r"[A-Za-z]", name) else f"v{name}"
        while found in self.used or self.pattern.fullmatch(found):
            self.counts[name] = count = self.counts.get(name, 0) + 1
            found = f"{name}_{count}" if count > 1 else f"{name}_"
        self.used.add(found)
        return found


def comment(text: str) -> str:
    """A comment of one line of printable ASCII, even if the name of the model's file is not."""
    return "# " + re.sub(r"[^ -~]", "?", text)


def heading(origin: Origin | None) -> str:
    """`# models/mlp.nn:6:8 dense_1 (backward)`"""
    return comment(str(origin) if origin else "made by the compiler")
