"""Many graphs in one library, so that tests compile hundreds of them in seconds, and guards around what they may use.

    with together() as libraries:       programs that are loaded here are compiled together at the first run
        program = NativeProgram(…)
    with libraries.threads(2):
        program.run(…)

Every function of a text is static but one, so texts are joined after their functions are renamed. A run works on a copy
of the arena between two guards, and each thread on a workspace between guards: whatever is written there is an error,
and whatever is read from there is NaN.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from runtime.native import library
from runtime.native.compilers import Compiler
from runtime.native.threads import available
from runtime.program import aligned_zeros

FUNCTION = re.compile(r"^(?:static |INLINE )?void (\w+)\(const Step \*", re.MULTILINE)
INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.MULTILINE)
GUARD = 4096  # bytes, before and after an arena and each workspace
NAN = 0xFF  # in every byte is NaN for each type of floats
LONGEST = 60_000  # characters of a library


class Damaged(AssertionError):
    """A graph has written outside of its arena or its workspace."""


class Together:
    """The libraries of many graphs, compiled with `flags` in place of -O3."""

    def __init__(self, flags: Sequence[str] = ()):
        self.flags = tuple(flags or os.environ.get("NNC_TEST_FLAGS", "-O1").split())
        self.pending: list[JoinedGraph] = []
        self.parts = 1

    def graph(self, text: str, function: str, workspace_bytes: int) -> JoinedGraph:
        """In place of NativeGraph."""
        found = JoinedGraph(self, text, function, workspace_bytes)
        self.pending.append(found)
        return found

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        before, self.parts = self.parts, count
        yield
        self.parts = before

    def compiler(self) -> Compiler:
        found, _ = library.find_compiler()
        return replace(found, flags=(*(flag for flag in found.flags if flag != "-O3"), *self.flags))

    def compile(self) -> None:
        """Compiles and loads all graphs that are not yet."""
        graphs, self.pending = self.pending, []
        groups: list[list[JoinedGraph]] = [[]]
        for graph in graphs:
            if sum(len(each.text) for each in groups[-1]) + len(graph.text) > LONGEST:
                groups.append([])
            groups[-1].append(graph)
        compiler = self.compiler()
        with ThreadPoolExecutor(available()) as pool:
            found = pool.map(lambda group: library.library_of(joined(group), compiler), groups)
            for group, path in zip(groups, found, strict=True):
                library.load_templates()
                loaded = library.load(path)
                for number, graph in enumerate(group):
                    graph.address = ctypes.cast(loaded[f"g{number}_{graph.function}"], ctypes.c_void_p)


def joined(graphs: Sequence[JoinedGraph]) -> str:
    """One text of many, with each header once."""
    headers = dict.fromkeys(name for graph in graphs for name in INCLUDE.findall(graph.text))
    texts = [renamed(graph.text, f"g{number}_") for number, graph in enumerate(graphs)]
    return "\n".join([*(f'#include "{name}"' for name in headers), *texts])


def renamed(text: str, prefix: str) -> str:
    """A text without includes whose functions have names with a prefix."""
    names = "|".join(FUNCTION.findall(text))
    return re.sub(rf"\b({names})\b", rf"{prefix}\1", INCLUDE.sub("", text))


class JoinedGraph:
    """A graph in a library of many: runs like NativeGraph, between guards."""

    def __init__(self, together: Together, text: str, function: str, workspace_bytes: int):
        self.together, self.text, self.function = together, text, function
        self.workspace_bytes = -(-workspace_bytes // library.ALIGNMENT) * library.ALIGNMENT
        self.address: ctypes.c_void_p | None = None

    def __call__(self, arena: np.ndarray, B: int) -> None:
        if self.address is None:
            self.together.compile()
        parts, step = self.together.parts, self.workspace_bytes + GUARD
        own, workspaces = guarded(arena.nbytes), guarded(parts * step)
        own[GUARD : GUARD + arena.nbytes] = arena
        place = own.ctypes.data + GUARD
        status = library.pool()(
            self.address,
            ctypes.c_void_p(place),
            ctypes.c_long(B),
            ctypes.c_void_p(workspaces.ctypes.data + GUARD),
            ctypes.c_long(step),
            ctypes.c_int(parts),
        )
        assert status == 0, os.strerror(status)
        arena[:] = own[GUARD : GUARD + arena.nbytes]
        areas = [("arena", own[:GUARD]), ("arena", own[GUARD + arena.nbytes :]), ("workspace", workspaces[:GUARD])]
        for part in range(parts):
            start = GUARD + part * step + self.workspace_bytes
            areas.append((f"workspace of thread {part}", workspaces[start : start + GUARD]))
        for what, area in areas:
            if not (area == NAN).all():
                raise Damaged(f"{self.function} writes outside of the {what}")


def guarded(size: int) -> np.ndarray:
    """Bytes of NaN between guards."""
    found = aligned_zeros(size + 2 * GUARD)
    found[:] = NAN
    return found


@contextmanager
def together(found: Together | None = None) -> Iterator[Together]:
    """A context in which the graphs of programs that are loaded become part of libraries."""
    found = found or Together()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "Graph", found.graph)
        yield found
