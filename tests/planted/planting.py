"""Planting bugs: edits of one place in the source of the compiler, the runtime or the standard library.

Nothing on disk changes. The edited file is compiled, and every function that it defines, even if only a table or a
decorator refers to it, gets the code of its edited twin; the library is read from a copy of its folder. Caches are
emptied before and after. Processes that run a Python script get the bug too.
"""

from __future__ import annotations

import functools
import gc
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
CHILD = "from tests.planted.bugs import BUGS\nbug = BUGS[{name!r}].planted()\nbug.__enter__()\n"
Edits = Mapping[str, str]  # text that occurs once in a file -> its replacement


@contextmanager
def planted(name: str, file: str, edits: Edits) -> Iterator[None]:
    """A context in which the compiler, the runtime or the library has a bug."""
    in_file = in_library if file.endswith(".nn") else in_module
    try:
        with in_file(file, changed_text(file, edits)), in_children(CHILD.format(name=name)):
            forget()
            yield
    finally:
        forget()


def changed_text(file: str, edits: Edits) -> str:
    text = (ROOT / file).read_text("utf-8")
    for old, new in edits.items():
        assert text.count(old) == 1, f"{file} has the text that this bug replaces {text.count(old)} times: {old!r}"
        text = text.replace(old, new)
    return text


@contextmanager
def in_module(file: str, changed: str) -> Iterator[None]:
    """A context in which every function of a module has its code from the changed text."""
    module = import_module(file.removesuffix(".py").replace("/", "."))
    twins = twin_codes((ROOT / file).read_text("utf-8"), changed, file)
    found = [(function, function.__code__) for function in functions_of(module) if place(function.__code__) in twins]
    assert found, f"no code of {file} is different"
    try:
        for function, code in found:
            function.__code__ = twins[place(code)]
        yield
    finally:
        for function, code in found:
            function.__code__ = code


def functions_of(module: ModuleType) -> list[FunctionType]:
    """All live functions that a module defines, including methods, decorated functions and entries of tables."""
    gc.unfreeze()  # training in this process freezes objects, which get_objects then leaves out
    return [each for each in gc.get_objects() if type(each) is FunctionType and each.__globals__ is vars(module)]


def twin_codes(text: str, changed: str, file: str) -> dict[Any, CodeType]:
    """The code of the functions that differ in the changed text, by their place in the original text."""
    before, after = (codes_in(compile(source, file, "exec", dont_inherit=True)) for source in (text, changed))
    return {place(old): new for old, new in zip(before, after, strict=True) if old != new}


def codes_in(code: CodeType) -> list[CodeType]:
    """The code objects in another, at any depth."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return [found for each in inner for found in (each, *codes_in(each))]


def place(code: CodeType) -> Any:
    """A key that distinguishes the functions of a file, even on one line."""
    return code.co_qualname, tuple(code.co_positions())


@contextmanager
def in_library(file: str, changed: str) -> Iterator[None]:
    """The standard library is read from a folder with the changed file."""
    from compiler.elaborate import library

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(library.LIBRARY_FOLDER, folder, dirs_exist_ok=True)
        (Path(folder) / Path(file).name).write_text(changed, "utf-8")
        with mock.patch.object(library, "LIBRARY_FOLDER", Path(folder)):
            yield


@contextmanager
def in_children(prefix: str) -> Iterator[None]:
    """A context in which every child process `python -c script` runs the prefix before the script."""
    real = subprocess.Popen.__init__

    def start(self: Any, command: Any, *arguments: Any, **settings: Any) -> None:
        if command[:2] == [sys.executable, "-c"]:
            command = [*command[:2], prefix + command[2], *command[3:]]
        real(self, command, *arguments, **settings)

    with mock.patch.object(subprocess.Popen, "__init__", start):
        yield


def forget() -> None:
    """Empties the caches of the compiler, the runtime and the tests; running threads stay as they are."""
    from compiler.ir import inference

    inference.known.clear()
    kind = type(functools.cache(forget))
    for each in [each for each in gc.get_objects() if type(each) is kind]:
        owner = each.__module__ or ""
        if owner.partition(".")[0] in ("compiler", "runtime", "tests") and owner != "runtime.cpu.threads":
            each.cache_clear()
