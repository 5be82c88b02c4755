"""What every code generator needs: identifiers that are safe and stay close to the model's names, and comments."""

from __future__ import annotations

import builtins
import keyword
import re

from compiler.ir.graph import Origin

# Names that generated source uses itself, or that would hide something of Python's.
RESERVED = {"np", "kernels", "arena", "batch", "view", "run", "B", *dir(builtins), *keyword.kwlist, *keyword.softkwlist}


class Names:
    """Gives every tensor an identifier of its own: `dense_1.w` becomes `dense_1_w`."""

    def __init__(self) -> None:
        self.used: set[str] = set(RESERVED)

    def fresh(self, wanted: str) -> str:
        """The wanted name as an ASCII identifier, with underscores after it until it is new."""
        name = re.sub(r"[^A-Za-z0-9_]", "_", wanted)
        name = name if re.match(r"[A-Za-z]", name) else f"v{name}"
        while name in self.used:
            name += "_"
        self.used.add(name)
        return name


def comment(text: str) -> str:
    """One line of printable ASCII, whatever the model's file is called."""
    return "# " + "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def heading(origin: Origin | None) -> str:
    """`# models/mlp.nn:6:8 dense_1 (backward)`"""
    return comment(str(origin) if origin else "made by the compiler")
