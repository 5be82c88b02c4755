"""A single file that trains a model with NumPy alone, with the same results as `nnc train`, bit for bit.

Its parts come from elsewhere: the functions of the graphs are generated as always (targets/shared/writer.py); the
linker (targets/numpy/linker.py) copies everything that they call out of the runtime, and the readers of data sets;
runtime/standalone has the settings, which get the values of the model, and the loop over epochs.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from compiler.ir.graph import Module
from compiler.planning.memory import Plan
from compiler.targets.numpy.linker import Definition, ImportedName, Linker, Piece
from compiler.targets.numpy.target import TARGET
from compiler.targets.numpy.tidy import INDENT, WIDTH, double_quoted, tidy
from runtime.datasets import BUILT_IN
from runtime.program import METRICS, PREPARE, Manifest

PACKAGE = "runtime"
LONGEST_SETTING = 60  # characters on its line
GENERATED = f"{PACKAGE}.generated"  # a module without a file: the functions of the model
BLAS, DATA, SETTINGS, TRAINING = (f"{PACKAGE}.standalone.{name}" for name in ("blas", "data", "settings", "training"))
GRAPHS = ("init", "train_step", PREPARE, "evaluate", METRICS)  # needed for training


class Section(NamedTuple):
    """A section of the file: the definitions from modules below `prefix`, with the docstrings if `explained`."""

    title: str
    prefix: str
    explained: bool = False


SECTIONS = (
    Section("Settings", SETTINGS),
    Section("Errors", f"{PACKAGE}.errors"),
    Section("Strokes of digits", f"{PACKAGE}.datasets.digit_strokes", explained=True),
    Section("Digits", f"{PACKAGE}.datasets.digits", explained=True),
    Section("Data", f"{PACKAGE}.cpu.free_memory"),
    Section("Data", f"{PACKAGE}.datasets"),
    Section("Data", DATA),
    Section("Threads", f"{PACKAGE}.cpu.threads", explained=True),
    Section("Random numbers", f"{PACKAGE}.random", explained=True),
    Section("Kernels", f"{PACKAGE}.cpu.kernels", explained=True),
    Section("The model", GENERATED, explained=True),
    Section("Training", PACKAGE),
)
DOCSTRING = """Trains the model {model} of {file} with NumPy alone.

    python {name} [--data PATH] [--epochs N] [--log LOSSES.jsonl] [--save WEIGHTS.npz]

The losses are the same as those of `nnc train`, bit for bit, on the same data, with the same NumPy and the same number
of threads, which OPENBLAS_NUM_THREADS may limit. From top to bottom: {contents}. Written by nnc, for Python 3.11 or
later."""
# E402: BLAS is set up before NumPy is imported. C901, B007: a graph is one function, however long, and every step of a
# scan has all views. RUF100: a graph may be short or without a scan.
NOQA = "# ruff: noqa: B007, C901, E402, RUF100"
EXPLANATION = '''"""The graphs of the model, as the compiler wrote them.

Each is a function of the arena and of B, the number of examples. It makes views of the arena and returns a function
that runs the graph once, the inputs to fill, and the results to read. Headings are places in the model; the comment of
a statement is the node that it computes.
"""
'''


def standalone(
    file: str, manifest: Manifest, module: Module, data: str, name: str, about: str, *others: object
) -> dict[str, bytes]:
    """A script called `name` that trains the model of `file`, by default on the data set or path `data`.

    `about` is what it prints about arrays and parameters.
    """
    chosen = manifest.settings
    plans, variables = TARGET.plan({graph: module[graph] for graph in GRAPHS if graph in module}, chosen.batch)
    settings = {
        "DATA": None if data in BUILT_IN else data,
        "BATCH": chosen.batch,
        "EPOCHS": chosen.epochs,
        "SEED": chosen.seed,
        "SHUFFLE": chosen.shuffle,
        "PATIENCE": None if chosen.patience is None else max(chosen.patience, 1),
        "METRICS": manifest.metrics,
        "TOTALS": dict(manifest.totals),
        "CLASSES": dict(manifest.classes),
        "VALIDATION": chosen.validation,
        "DTYPES": manifest.dtypes,
        "ABOUT": about,
        "ARENA_BYTES": max(plan.size for plan in plans),
    }
    ordered = sorted(plans, key=lambda plan: GRAPHS.index(plan.graph.name))
    linker = Linker(
        PACKAGE,
        sources={GENERATED: EXPLANATION + TARGET.generate(file, ordered, variables) + table_of_graphs(ordered)},
        replaced={
            Definition(f"{PACKAGE}.cpu.threads", "thread_count"): Definition(BLAS, "thread_count"),
            Definition(DATA, "load_data"): Definition(DATA, f"load_{data if data in BUILT_IN else 'arrays'}"),
            Definition(SETTINGS, "GRAPHS"): Definition(GENERATED, "GRAPHS"),
        },
        values={Definition(SETTINGS, setting): written(value) for setting, value in settings.items()},
    )
    linker.need(Definition(TRAINING, "main"))
    lines = file_lines(linker, {"model": plain(manifest.model), "file": plain(file), "name": plain(name)})
    return {name: ("\n".join(lines) + "\n").encode()}


def written(value: Any) -> str:
    """A setting as source; a long table or list has a line for each item."""
    (text,) = double_quoted([repr(value)])
    if len(text) <= LONGEST_SETTING or not isinstance(value, dict | tuple):
        return text
    rows = [f"{key!r}: {each!r}" for key, each in value.items()] if isinstance(value, dict) else map(repr, value)
    return "\n".join([text[0], *(f"{INDENT}{row}," for row in double_quoted(list(rows))), text[-1]])


def table_of_graphs(plans: Sequence[Plan]) -> str:
    """The functions by name, as source of a dictionary."""
    rows = [f'    "{name}": bind_{name},' for name in (*(plan.graph.name for plan in plans), "variables")]
    return "\n".join(["", "", "GRAPHS = {", *rows, "}", ""])


def plain(text: str) -> str:
    """Untrusted text, without characters that are special in a docstring or for argparse."""
    return re.sub(r'[^ -~]|["\\%]', "?", text)


# The lines of the file ------------------------------------------------------------------------------------------------


def file_lines(linker: Linker, names: dict[str, str]) -> Iterator[str]:
    """All lines. BLAS is set up between the imports of the standard library and that of NumPy."""
    modules = modules_in_order(linker)
    contents = ", ".join(dict.fromkeys(section_of(module).title.lower() for module in modules))
    yield from rewrapped(f'"""{DOCSTRING.format(contents=contents, **names)}')
    yield from ('"""', "", NOQA, "", "from __future__ import annotations")
    early = {each for each in linker.imports if each.module.partition(".")[0] in sys.stdlib_module_names}
    yield from ("", *import_lines(early))
    yield from ("", *commented(linker.module(BLAS).docstring), *piece_lines(linker.pieces(BLAS)))
    yield from ("", "", *import_lines(linker.imports.keys() - early))
    for i, (title, members) in enumerate(groupby(modules, heading)):
        first, *others = members
        yield from [""] * (2 if i else 1)
        yield f"# {title} ".ljust(WIDTH, "-")
        if section_of(first).explained:
            yield from commented(linker.module(first).docstring)
        yield from piece_lines([piece for module in (first, *others) for piece in linker.pieces(module)])
    yield from ("", "", 'if __name__ == "__main__":', "    main()")


def modules_in_order(linker: Linker) -> list[str]:
    """The modules by section; a package comes before its modules, for its docstring."""
    modules = [module for module in linker.module_order if module != BLAS]
    packages = [s.prefix for s in SECTIONS if s.explained and any(m.startswith(f"{s.prefix}.") for m in modules)]
    return sorted([*packages, *modules], key=lambda module: SECTIONS.index(section_of(module)))


def section_of(module: str) -> Section:
    return next(each for each in SECTIONS if f"{module}.".startswith(f"{each.prefix}."))


def heading(module: str) -> str:
    """`Kernels: products` if a section has several explained modules, else its title."""
    section = section_of(module)
    rest = module.removeprefix(section.prefix).replace("_", " ") if section.explained else ""
    return section.title + rest.replace(".", ": ", 1)


def import_lines(imports: Iterable[ImportedName]) -> list[str]:
    """Imports of modules, then of names by module, each sorted into constants, classes, functions."""
    modules = {
        f"import {module}" + (f" as {alias}" if alias != module else "") for module, name, alias in imports if not name
    }
    names: dict[str, set[str]] = {}
    for module, name, alias in imports:
        if name:
            names.setdefault(module, set()).add(name + (f" as {alias}" if alias != name else ""))
    order = [
        sorted(each, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) for each in names.values()
    ]
    parts = sorted(f"from {module} import {', '.join(each)}" for module, each in zip(names, order, strict=True))
    return [*sorted(modules), *parts]


def piece_lines(pieces: Iterable[Piece]) -> Iterator[str]:
    """The lines of statements, with two empty lines around functions and classes; constants stay together."""
    before: Piece | None = None
    for piece in pieces:
        separate = piece.is_definition or (before is not None and before.is_definition)
        together = before is not None and before.module == piece.module and piece.gap == 0
        yield from [""] * (2 if separate else 0 if together else 1)
        yield from tidy(piece.lines) if piece.module == GENERATED else piece.lines
        before = piece


def commented(text: str) -> list[str]:
    return [f"# {line}".rstrip() for line in rewrapped(text, WIDTH - 2)]


def rewrapped(text: str, width: int = WIDTH) -> list[str]:
    """The lines of a text, with paragraphs wrapped again if they have a line that is too long."""
    lines: list[str] = []
    for _, group in groupby(text.split("\n"), lambda line: not line):
        paragraph = list(group)
        fits = all(len(line) <= width for line in paragraph)
        lines += paragraph if fits else textwrap.wrap(" ".join(paragraph), width, break_on_hyphens=False)
    return lines
