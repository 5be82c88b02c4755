"""Definitions extracted from modules: what they need comes along, and every name keeps its meaning."""

from __future__ import annotations

import ast

import pytest

from compiler.targets.numpy.linker import Definition, Linker, free_names

KERNELS = '''
"""Kernels."""
import math
from functools import partial

from project.threads import LIMIT, spread as divide

LIMIT_HERE = 3  # of kernels


# Of what is decorated
@partial
def decorated():
    from json import dumps

    return dumps(LIMIT)


def area(radius, pi=math.pi):
    size = [each for each in (radius, LIMIT_HERE)]
    return divide(pi, size)


def unused():
    return missing
'''
THREADS = '''
"""Threads."""
try:
    import fast as engine
except ImportError:
    import slow as engine

LIMIT = 8


def spread(*values):
    return engine, values, helper()


def helper():
    return 1
'''
MAIN = '''
"""Main."""
from project import kernels
from project.kernels import decorated

LIMIT = "of main"


def helper():
    return kernels.area(LIMIT), decorated


def hides(area):
    return kernels.area(area)
'''
SOURCES = {"project.kernels": KERNELS, "project.threads": THREADS, "project.main": MAIN, "project": ""}


def linked(*names: str, **options: dict) -> dict[str, str]:
    """The text extracted from each module for names of the main module."""
    linker = Linker("project", SOURCES, **{"replaced": {}, "values": {}, **options})
    for name in names:
        linker.need(Definition("project.main", name))
    texts = {}
    for module in linker.module_order:
        texts[module] = "\n".join(line for piece in linker.pieces(module) for line in piece.lines)
    texts["imports"] = ", ".join(sorted(each.alias for each in linker.imports))
    return texts


def test_extracts_what_is_needed_and_nothing_else():
    found = linked("helper")
    assert list(found) == ["project.threads", "project.kernels", "project.main", "imports"]
    assert found["imports"] == "dumps, math, partial"
    assert "unused" not in found["project.kernels"]


def test_modules_names_and_imports_become_plain_names():
    found = linked("helper")
    assert "return area(MAIN_LIMIT), decorated" in found["project.main"]
    assert "return spread(pi, size)" in found["project.kernels"]


def test_comments_and_decorators_stay_and_late_imports_do_not():
    expected = (
        "LIMIT_HERE = 3  # of kernels\n# Of what is decorated\n@partial\ndef decorated():\n    return dumps(LIMIT)\n"
    )
    assert linked("helper")["project.kernels"].startswith(expected)


def test_two_definitions_of_one_name_stay_apart():
    found = linked("helper")
    assert 'MAIN_LIMIT = "of main"' in found["project.main"]
    assert "\nLIMIT = 8" in found["project.threads"]
    assert "def threads_helper():" in found["project.threads"]
    assert "engine, values, threads_helper()" in found["project.threads"]


def test_a_definition_shadowed_where_it_is_used_is_renamed():
    found = linked("hides")
    assert "return kernels_area(area)" in found["project.main"]
    assert "def kernels_area(radius, pi=math.pi):" in found["project.kernels"]


def test_imports_in_a_try_statement_stay_together():
    text = linked("helper")["project.threads"]
    assert text.startswith("try:\n    import fast as engine\nexcept ImportError:\n    import slow as engine\n")


def test_definitions_and_values_in_place_of_others():
    replaced = {Definition("project.kernels", "decorated"): Definition("project.threads", "spread")}
    found = linked("helper", replaced=replaced, values={Definition("project.main", "LIMIT"): "1 + 1"})
    assert "LIMIT = 1 + 1" in found["project.main"]
    assert "return area(LIMIT), spread" in found["project.main"]
    assert "decorated" not in found["project.kernels"]


def test_every_result_is_valid_python():
    for text in linked("helper", "hides").values():
        ast.parse(text)


@pytest.mark.parametrize(
    ("source", "free"),
    [
        ("def f(a, b=c) -> d: return a + e", "c d e"),
        ("def f():\n    g = 1\n    def h(): return g, k\n    return h", "k"),
        ("@g\nclass C(D):\n    def f(self): return self, h", "D g h"),
        ("x = [y for y in z]", "y z"),
        ("def f():\n    try: g()\n    except E as error: return error", "E g"),
        ("f = lambda a: (a, b)", "b"),
    ],
)
def test_free_names(source: str, free: str):
    assert free_names(ast.parse(source)) == set(free.split())
