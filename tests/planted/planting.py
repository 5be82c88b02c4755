"""Planting bugs: one place in the source of the compiler, the runtime or the standard library reads otherwise.

Nothing on disk changes. The file is compiled again with the other text, and every function that stands in it, wherever
in a table or a decorator, gets the code of its twin; the library is read from a copy of its folder. What was computed
before and kept in caches is forgotten, before and after. Processes that run a Python script get the bug too.
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
CHILD = "from tests.planted.bugs import BUGS\nheld = BUGS[{name!r}].planted()\nheld.__enter__()\n"
Edits = Mapping[str, str]  # what occurs once in a file -> what stands in its place


@contextmanager
def planted(name: str, file: str, edits: Edits) -> Iterator[None]:
    """The compiler, the runtime and the library with a bug, as long as this lasts."""
    in_file = in_library if file.endswith(".nn") else in_module
    try:
        with in_file(file, changed_text(file, edits)), in_children(CHILD.format(name=name)):
            forget()
            yield
    finally:
        forget()


def changed_text(file: str, edits: Edits) -> str:
    text = (ROOT / file).read_text("utf-8")
    for was, becomes in edits.items():
        assert text.count(was) == 1, f"{file} has {text.count(was)} times what this bug replaces: {was!r}"
        text = text.replace(was, becomes)
    return text


@contextmanager
def in_module(file: str, changed: str) -> Iterator[None]:
    """Every function of a module has the code that it has in the changed text."""
    module = import_module(file.removesuffix(".py").replace("/", "."))
    twins = twin_codes((ROOT / file).read_text("utf-8"), changed, file)
    found = [(function, function.__code__) for function in functions_of(module) if place(function.__code__) in twins]
    assert found, f"nothing of {file} that runs is different"
    try:
        for function, code in found:
            function.__code__ = twins[place(code)]
        yield
    finally:
        for function, code in found:
            function.__code__ = code


def functions_of(module: ModuleType) -> list[FunctionType]:
    """All functions alive that were written in a module: methods, decorated ones and those in tables among them."""
    gc.unfreeze()  # training in this process has put what was there out of sight
    return [each for each in gc.get_objects() if type(each) is FunctionType and each.__globals__ is vars(module)]


def twin_codes(text: str, changed: str, file: str) -> dict[Any, CodeType]:
    """The code of the functions that differ in the changed text, by the place in the text where they were."""
    before, after = (codes_in(compile(source, file, "exec", dont_inherit=True)) for source in (text, changed))
    return {place(old): new for old, new in zip(before, after, strict=True) if old != new}


def codes_in(code: CodeType) -> list[CodeType]:
    """The code objects in another, at any depth."""
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return [found for each in inner for found in (each, *codes_in(each))]


def place(code: CodeType) -> Any:
    """Tells apart the functions of a file, those on one line too."""
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
    """What runs `python -c script` runs the prefix before the script."""
    real = subprocess.Popen.__init__

    def start(self: Any, command: Any, *arguments: Any, **settings: Any) -> None:
        if command[:2] == [sys.executable, "-c"]:
            command = [*command[:2], prefix + command[2], *command[3:]]
        real(self, command, *arguments, **settings)

    with mock.patch.object(subprocess.Popen, "__init__", start):
        yield


def forget() -> None:
    """Empties the caches of the compiler, the runtime and the tests; threads that run stay as they are."""
    from compiler.ir import inference

    inference.known.clear()
    kind = type(functools.cache(forget))
    for each in [each for each in gc.get_objects() if type(each) is kind]:
        owner = each.__module__ or ""
        if owner.partition(".")[0] in ("compiler", "runtime", "tests") and owner != "runtime.cpu.threads":
            each.cache_clear()
