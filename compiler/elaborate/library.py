"""What a program's names mean: its own declarations and those of its imports, then the standard library, then builtins.

Every program runs on top of the library, so this file also imports the modules that fill the tables of builtins,
expressions and statements.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from compiler.diagnostics import Diagnostics, Note, Span, UserError
from compiler.elaborate import expressions, number_builtins, statements, tensor_builtins  # noqa: F401 fill the tables
from compiler.elaborate.builtins import BUILTINS
from compiler.elaborate.values import Namespace
from compiler.language.parser import parse, read_source
from compiler.language.syntax import FUNCTION_KINDS, Function, Program

LIBRARY_FOLDER = Path(__file__).resolve().parent.parent / "std"
LIBRARY_HEAD = re.compile(rf"^(?:{'|'.join(FUNCTION_KINDS)}) (\w+)", re.MULTILINE)
LONGEST_IMPORT_CHAIN = 50


class Library(Mapping[str, Function]):
    """The declarations of the standard library, each parsed on first use."""

    def __init__(self, folder: Path):
        self.parsed: dict[str, Function] = {}
        self.pieces: dict[str, tuple[str, str]] = {}  # name -> file, and the text of the declaration
        for path in sorted(folder.glob("*.nn")):
            text = path.read_text("utf-8")
            heads = [*LIBRARY_HEAD.finditer(text)]
            for head, stop in zip(heads, [*(head.start() for head in heads[1:]), len(text)], strict=True):
                before = "\n" * text.count("\n", 0, head.start())  # keeps the line numbers of the file
                self.pieces[head[1]] = f"std/{path.name}", before + text[head.start() : stop]

    def __getitem__(self, name: str) -> Function:
        if name not in self.parsed:
            file, text = self.pieces[name]
            diagnostics = Diagnostics()
            (self.parsed[name],) = parse(text, file, diagnostics).functions
            diagnostics.raise_if_any()
        return self.parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def __contains__(self, name: object) -> bool:
        return name in self.pieces


@cache
def library() -> Namespace:
    """The standard library, read once per process."""
    return Namespace(Library(LIBRARY_FOLDER), BUILTINS, is_library=True)


def user_namespace(program: Program, diagnostics: Diagnostics) -> Namespace:
    """A program's declarations over the library's; a name declared twice in the program is an error."""
    declarations: dict[str, Function] = {}
    for function in program.functions:
        name = function.name.id
        if name in declarations:
            notes = [Note(f"{name} is also declared here", declarations[name].name.span)]
            message, expected = f"{name} is declared twice", "one declaration of each name"
            diagnostics.error(function.name.span, message, expected=expected, found=name, notes=notes)
        else:
            declarations[name] = function
    return Namespace(declarations, parent=library())


def with_imports(program: Program, diagnostics: Diagnostics) -> Program:
    """The program, preceded by the declarations of all imported files, each file once."""
    functions: list[Function] = []
    seen: set[Path] = set()

    def visit(current: Program, chain: tuple[Path, ...]) -> None:
        for item in current.imports:
            path = Path(current.file).parent / item.path.value
            target = Path(os.path.realpath(path))
            found = f'"{item.path.value}"'
            if Path(item.path.value).is_absolute():
                expected = "a path relative to the folder of this file"
                diagnostics.error(item.path.span, "an import must be a relative path", expected=expected, found=found)
            elif target in chain or len(chain) > LONGEST_IMPORT_CHAIN:
                message, expected = "the imports form a circle", "files that do not import each other"
                diagnostics.error(item.path.span, message, expected=expected, found=found)
            elif target not in seen:
                seen.add(target)
                imported = read_import(path, item.path.span, diagnostics)
                if imported is not None:
                    visit(imported, (*chain, target))
                    functions.extend(imported.functions)

    visit(program, (Path(os.path.realpath(program.file)),))
    return Program(
        file=program.file,
        imports=(),
        functions=(*functions, *program.functions),
        trains=program.trains,
        span=program.span,
    )


def read_import(path: Path, span: Span, diagnostics: Diagnostics) -> Program | None:
    """The tree of an imported file; if it cannot be read, the mistake is reported at the import."""
    problems = Diagnostics()
    text = read_source(path, problems)
    if text is not None:
        return parse(text, str(path), diagnostics)
    try:
        problems.raise_if_any()
    except UserError as error:
        for problem in error.diagnostics:
            found = problem.found or (f"byte at {problem.span}" if problem.span else None)
            diagnostics.error(span, problem.message, expected=problem.expected or "a file", found=found)
    return None
