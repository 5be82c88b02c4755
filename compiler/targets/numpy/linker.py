"""Extracts definitions from modules, with everything they need, to be written into a single file.

A definition needs the names that it uses from its module: other definitions, followed from module to module through
imports, and imports from other packages, which become imports of the file. In the file `kernels.matmul` is `matmul`. If
two definitions have the same name, the second is renamed, as is a definition whose name is hidden where it is used.
Imports inside functions move to the top. Modules are parsed, not run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import NamedTuple

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Definition(NamedTuple):
    """A definition: its module, and its name there."""

    module: str
    name: str


class ImportedName(NamedTuple):
    """A name bound by an import statement: a name of a module or, if `name` is empty, the module itself."""

    module: str
    name: str
    alias: str


class Use(NamedTuple):
    """A reference inside a statement: `matmul` or `kernels.matmul`."""

    node: ast.Name | ast.Attribute
    target: Definition | ImportedName


class Edit(NamedTuple):
    """A replacement of bytes in a line; lines count from 1."""

    line: int
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Piece:
    """A statement as written to the file: a function, a class or another one. `gap` is the number of empty lines that
    preceded it in its module."""

    module: str
    lines: list[str]
    is_definition: bool
    gap: int


class SourceModule:
    """A parsed module: its docstring, its definitions, and the names its imports bind, including those in functions."""

    def __init__(self, name: str, text: str):
        self.name = name
        self.lines = text.splitlines()
        self.tree = ast.parse(text)
        self.docstring = ast.get_docstring(self.tree) or ""
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: dict[str, ImportedName] = {}
        for statement in self.tree.body:
            is_try = isinstance(statement, ast.Try)  # several imports, one of which succeeds
            imports = {each.alias: each for each in imports_in(statement)}
            self.imports |= {} if is_try else imports
            self.definitions |= dict.fromkeys([*bound_names([statement]), *(imports if is_try else ())], statement)

    def first_line(self, statement: ast.stmt) -> int:
        """The first line of a statement, counted from 1, including its decorators and the comment right above it."""
        first = min(node.lineno for node in (statement, *getattr(statement, "decorator_list", ())))
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        return first

    def gap_before(self, line: int) -> int:
        """The number of empty lines before a line, which is counted from 1."""
        before = line - 1
        while before and not self.lines[before - 1]:
            before -= 1
        return line - 1 - before


class Linker:
    """Collects definitions from modules of a package.

    `sources` are texts of modules without a file, `replaced` maps definitions to others used instead, and `values` are
    assigned to names instead of the values in their modules.
    """

    def __init__(
        self,
        package: str,
        sources: Mapping[str, str],
        replaced: Mapping[Definition, Definition],
        values: Mapping[Definition, str],
    ):
        self.package, self.replaced, self.values = package, replaced, values
        self.modules = {name: SourceModule(name, text) for name, text in sources.items()}
        self.needed: dict[Definition, None] = {}  # in the order they are found
        self.uses: dict[ast.stmt, list[Use]] = {}  # by statement of a definition
        self.imports: dict[ImportedName, None] = {}

    def module(self, name: str) -> SourceModule:
        if name not in self.modules:
            self.modules[name] = SourceModule(name, source_of(name))
        return self.modules[name]

    def need(self, key: Definition) -> None:
        """Collects a definition and everything it needs."""
        self.needed[key] = None
        statement = self.module(key.module).definitions[key.name]
        if statement in self.uses:
            return
        self.uses[statement] = list(self.uses_in(key.module, statement))
        for use in self.uses[statement]:
            if isinstance(use.target, ImportedName):
                self.imports[use.target] = None
            elif use.target not in self.needed:
                self.need(use.target)

    def uses_in(self, module: str, statement: ast.stmt) -> Iterator[Use]:
        free = free_names(statement)
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in free:
                base = self.resolve(module, node.value.id)
                if isinstance(base, ImportedName) and self.is_ours(base.module):
                    target = self.resolve(base.module, node.attr)
                    assert target is not None, f"{base.module} has no {node.attr}"
                    yield Use(node, target)
            elif isinstance(node, ast.Name) and node.id in free:
                target = self.resolve(module, node.id)
                if isinstance(target, Definition) or (target and not self.is_ours(target.module)):
                    yield Use(node, target)

    def resolve(self, module: str, name: str) -> Definition | ImportedName | None:
        """The meaning of a name in a module; None for a builtin."""
        here = self.module(module)
        if name in here.definitions:
            return self.replaced.get(Definition(module, name), Definition(module, name))
        found = here.imports.get(name)
        if found is None or not found.name or not self.is_ours(found.module):
            return found
        return self.resolve(found.module, found.name) or ImportedName(f"{found.module}.{found.name}", "", name)

    def is_ours(self, module: str) -> bool:
        return module in self.modules or module.partition(".")[0] == self.package

    @cached_property
    def names(self) -> dict[Definition, str]:
        """The name of every definition in the file."""
        hidden: dict[Definition, set[str]] = {key: set() for key in self.needed}
        for statement, uses in self.uses.items():
            local = names_inside(statement)
            for node, target in uses:
                if isinstance(target, Definition) and not (isinstance(node, ast.Name) and node.id == target.name):
                    hidden[target] |= local
        used = {each.alias for each in self.imports}
        names: dict[Definition, str] = {}
        for key in self.needed:
            names[key] = unused_name(key, used | hidden[key])
            used.add(names[key])
        return names

    @property
    def module_order(self) -> list[str]:
        """The modules that definitions come from, each after those it needs."""
        needs: dict[str, dict[str, None]] = {key.module: {} for key in self.needed}
        for key in self.needed:
            targets = self.uses[self.module(key.module).definitions[key.name]]
            needs[key.module] |= {use.target.module: None for use in targets if isinstance(use.target, Definition)}
        order: dict[str, None] = {}

        def visit(module: str, path: tuple[str, ...]) -> None:
            if module not in order and module not in path:
                for other in needs[module]:
                    visit(other, (*path, module))
                order[module] = None

        for module in needs:
            visit(module, ())
        return list(order)

    def pieces(self, name: str) -> list[Piece]:
        """The collected statements of a module, in their order there."""
        module, found = self.module(name), []
        for statement in module.tree.body:
            if statement in self.uses:
                first = module.first_line(statement)
                lines = edited(module.lines, first, statement, [*self.edits(name, statement)])
                found.append(Piece(name, lines, isinstance(statement, DEFINITIONS), module.gap_before(first)))
        return found

    def edits(self, module: str, statement: ast.stmt) -> Iterator[Edit]:
        """The edits of a statement: references get the names in the file, and a name its value from `values`."""
        for node, target in self.uses[statement]:
            name = target.alias if isinstance(target, ImportedName) else self.names[target]
            if not isinstance(node, ast.Name) or node.id != name:
                yield replacement(node, name)
        if isinstance(statement, DEFINITIONS):
            start = len("class " if isinstance(statement, ast.ClassDef) else "def ")
            new_name = self.names[Definition(module, statement.name)]
            yield Edit(statement.lineno, start, start + len(statement.name), new_name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and Definition(module, node.id) in self.needed and stored(node):
                    yield replacement(node, self.names[Definition(module, node.id)])
                    if statement.value and (value := self.values.get(Definition(module, node.id))):
                        yield replacement(statement.value, value)


def source_of(module: str) -> str:
    """The text of an installed module."""
    spec = find_spec(module)
    text = spec.loader.get_source(module) if spec and spec.loader else None  # type: ignore[attr-defined]
    assert text is not None, f"no source of {module}"
    return text


def unused_name(key: Definition, used: set[str]) -> str:
    """The name of a definition; if already used, with its module's name as prefix, and underscores at the end."""
    name = key.name
    if name in used:
        name = f"{key.module.rpartition('.')[2]}_{name}"
        name = name.upper() if key.name.isupper() else name
    while name in used:
        name += "_"
    return name


# Statements -----------------------------------------------------------------------------------------------------------


def edited(lines: list[str], first: int, statement: ast.stmt, edits: Iterable[Edit]) -> list[str]:
    """The edited lines of a statement, starting at line `first` (counted from 1), without imports inside functions."""
    changed = {i: lines[i - 1].encode() for i in range(first, (statement.end_lineno or first) + 1)}
    for line, start, end, text in sorted(edits, reverse=True):
        changed[line] = changed[line][:start] + text.encode() + changed[line][end:]
    for node in ast.walk(statement) if isinstance(statement, DEFINITIONS) else ():
        if isinstance(node, ast.Import | ast.ImportFrom):
            after = (node.end_lineno or node.lineno) + 1
            for i in range(node.lineno, after if lines[after - 1].strip() else after + 1):
                del changed[i]
    return [line.decode() for line in changed.values()]


def replacement(node: ast.expr, text: str) -> Edit:
    assert node.end_lineno == node.lineno and node.end_col_offset is not None, "a reference is on one line"
    return Edit(node.lineno, node.col_offset, node.end_col_offset, text)


def stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def imports_in(statement: ast.stmt) -> Iterator[ImportedName]:
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            yield from (ImportedName(node.module, name.name, name.asname or name.name) for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (ImportedName(name.name, "", name.asname or name.name.partition(".")[0]) for name in node.names)


def bound_names(nodes: Iterable[ast.AST]) -> list[str]:
    """The names that nodes assign or define, except inside functions and classes."""
    found: list[str] = []
    for node in nodes:
        if isinstance(node, DEFINITIONS):
            found.append(node.name)
        elif not isinstance(node, ast.Lambda):
            found += [node.id] if isinstance(node, ast.Name) and stored(node) else []
            found += [node.name] if isinstance(node, ast.ExceptHandler) and node.name else []
            found += bound_names(ast.iter_child_nodes(node))
    return found


def names_inside(statement: ast.stmt) -> set[str]:
    """All names bound anywhere inside a definition."""
    nodes = list(ast.walk(statement))[1:] if isinstance(statement, DEFINITIONS) else []
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    defined = {node.name for node in nodes if isinstance(node, DEFINITIONS)}
    return arguments | defined | {node.id for node in nodes if isinstance(node, ast.Name) and stored(node)}


def free_names(node: ast.AST) -> set[str]:
    """The names that a node uses but does not bind."""
    if isinstance(node, ast.Name):
        return set() if stored(node) else {node.id}
    if not isinstance(node, FUNCTIONS):
        return set().union(*map(free_names, ast.iter_child_nodes(node)))
    inside = {node.body} if isinstance(node, ast.Lambda) else set(node.body)
    outside = [child for child in ast.iter_child_nodes(node) if child not in inside]
    own = {child.arg for child in ast.walk(node.args) if isinstance(child, ast.arg)} | {*bound_names(inside)}
    return set().union(*map(free_names, outside)) | (set().union(*map(free_names, inside)) - own)
