"""Which declaration a name means: the user's files first, then the standard library, then what the compiler implements."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from compiler.diagnostics import Diagnostics, UserError
from compiler.elaborate.values import Builtin, Closure
from compiler.language.parser import parse, read_source
from compiler.language.syntax import Function, Program

LIBRARY_FOLDER = Path(__file__).resolve().parent.parent / "std"
LONGEST_IMPORT_CHAIN = 50


@dataclass(eq=False)
class Namespace:
    """The declarations of a program or of the library; the rest is looked up in the parent."""

    declarations: dict[str, Function] = field(default_factory=dict)
    builtins: dict[str, Builtin] = field(default_factory=dict)
    parent: Namespace | None = None
    is_library: bool = False

    def find(self, name: str) -> Closure | Builtin | None:
        if name in self.declarations:
            return Closure(self.declarations[name], self)
        if name in self.builtins:
            return self.builtins[name]
        return self.parent.find(name) if self.parent else None

    def names(self) -> list[str]:
        inherited = self.parent.names() if self.parent else []
        return [*self.declarations, *self.builtins, *inherited]


@cache
def library() -> Namespace:
    """The standard library, parsed once a process."""
    from compiler.elaborate.builtins import BUILTINS

    diagnostics = Diagnostics()
    namespace = Namespace(builtins=BUILTINS, is_library=True)
    for path in sorted(LIBRARY_FOLDER.glob("*.nn")):
        program = parse(path.read_text("utf-8"), f"std/{path.name}", diagnostics)
        namespace.declarations |= {function.name.id: function for function in program.functions}
    diagnostics.raise_if_any()
    return namespace


def user_namespace(program: Program, diagnostics: Diagnostics) -> Namespace:
    """A program's declarations over the library's; a name declared twice in the program is an error."""
    namespace = Namespace(parent=library())
    for function in program.functions:
        name = function.name.id
        if name in namespace.declarations:
            first = namespace.declarations[name].name.span
            message = f"{name} is declared twice (first at {first.file}:{first.line})"
            diagnostics.error(function.name.span, message, expected="one declaration of each name")
        else:
            namespace.declarations[name] = function
    return namespace


def with_imports(program: Program, diagnostics: Diagnostics) -> Program:
    """The program with the declarations of all imported files in front, each file once."""
    functions: list[Function] = []
    seen: set[Path] = set()

    def visit(current: Program, chain: tuple[Path, ...]) -> None:
        for item in current.imports:
            target = (Path(current.file).parent / item.path.value).resolve()
            if Path(item.path.value).is_absolute():
                diagnostics.error(item.path.span, "an import is relative to its file", found=item.path.value)
            elif target in chain or len(chain) > LONGEST_IMPORT_CHAIN:
                diagnostics.error(item.path.span, "the imports go round in a circle", found=item.path.value)
            elif target not in seen:
                seen.add(target)
                imported = read_import(Path(current.file).parent / item.path.value, item.path.span, diagnostics)
                if imported is not None:
                    visit(imported, (*chain, target))
                    functions.extend(imported.functions)

    visit(program, (Path(program.file).resolve(),))
    return Program(
        file=program.file,
        imports=(),
        functions=(*functions, *program.functions),
        trains=program.trains,
        span=program.span,
    )


def read_import(path: Path, span, diagnostics: Diagnostics) -> Program | None:
    try:
        text = read_source(path, diagnostics)
    except UserError as error:
        diagnostics.error(span, error.diagnostics[0].message, found=str(path))
        return None
    return None if text is None else parse(text, str(path), diagnostics)
