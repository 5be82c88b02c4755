"""From flags to a program: the file they name, the keys that they replace, the passes that they choose."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import RuntimeUserError, quoted

if TYPE_CHECKING:
    from compiler.driver import Overrides
    from compiler.language.syntax import Program as Tree
    from compiler.passes.pipeline import Pass

IR = ".ir"


def source_of(path: str | Path) -> Path:
    """A file, or the program of a run's folder."""
    program = Path(path) / "program.nn"
    return program if os.path.exists(program) else Path(path)


def is_ir(path: str | Path) -> bool:
    return Path(path).suffix == IR


def refuse_ir(path: str | Path, command: str) -> None:
    """Raises RuntimeUserError for IR text, which is not all of a program."""
    if is_ir(path):
        raise RuntimeUserError(
            f"{command} needs a program: IR text holds graphs, but no layers, data or settings",
            expected="a .nn file",
            found=quoted(str(path)),
            hint="emit, opt, plan and check take IR text",
        )


def overrides(flags: argparse.Namespace) -> list[tuple[str, str]]:
    """The keys of the train block that the flags replace, as source text."""
    found = []
    for text in flags.set:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RuntimeUserError("--set takes KEY=VALUE", expected="--set train.batch=256", found=text)
        found.append((key.strip(), value))
    for key in ("batch", "epochs", "seed"):
        value = getattr(flags, key, None)
        if value is not None:
            found.append((f"--{key}", value))
    if flags.data is not None:
        text = flags.data.replace("\\", "\\\\").replace('"', '\\"')
        found.append(("--data", f'"{text}"'))
    return found


def load_program(path: Path, flags: argparse.Namespace, changes: Overrides) -> tuple[Tree, str]:
    """The tree of a file with the flags applied, and the name of its data set."""
    from compiler.driver import data_of, load_tree

    tree = load_tree(path, changes, flags.model, flags.diagnostics)
    return tree, data_of(tree, flags.model)


def names_in(texts: list[str]) -> list[str]:
    """The names in `a,b c`, given once or several times."""
    return [name for text in texts for name in text.replace(",", " ").split()]


def chosen_passes(flags: argparse.Namespace) -> tuple[Pass, ...]:
    """Those of the target with those of --enable, or those of --passes; less those of --disable."""
    from compiler.passes.pipeline import choose, with_optional
    from compiler.targets.target import find_target

    only = None if flags.passes is None else names_in([flags.passes])
    target = find_target(flags.target)
    passes = with_optional(target.pipeline, target.optional, names_in(flags.enable))
    return choose(passes, only, names_in(flags.disable))
