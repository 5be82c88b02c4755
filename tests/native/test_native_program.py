"""Programs in C: what their source may contain, indices outside of tables, and the cache that they are trusted from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tests.native.compiler_or_skip  # noqa: F401
from compiler.cli.building import why_not_trusted
from compiler.cli.cache import Build, Cache
from runtime.allowed import CPU_PROGRAMS, NATIVE_PROGRAMS, RefusedSource, checked_code
from runtime.errors import IndexOutside, RuntimeUserError
from runtime.feeding import batches
from runtime.native.program import NativeProgram
from runtime.program import LAST_PLACE, LEAST_INDEX, PLACES, Executable, IndexCheck, Manifest

SOURCE = '''import numpy as np

from runtime.cpu.kernels import view
from runtime.native.library import Graph

evaluate = Graph(r"""
#include "step.h"
void evaluate(const Step *s) {
    const int *x = (const int *)s->arena;
    double *sum = (double *)(s->arena + 64);
    long *code = (long *)(s->arena + 128);
    if (s->part) return;
    *sum = *code = 0;
    for (long i = 0; i < s->B; ++i) {
        *sum += x[i];
        if (!*code && (x[i] < 0 || x[i] > 9)) *code = (PLACE - i) * (1L << 32) + x[i] - LEAST;
    }
}
""", "evaluate", 64)


def bind_evaluate(arena, B):
    if arena.nbytes < 192:
        raise ValueError("the arena is too small")
    x = view(arena, 0, np.int32, (B,))
    loss = view(arena, 64, np.float64, ())
    code = view(arena, 128, np.int64, ())

    def run():
        evaluate(arena, B)

    return run, {"x": x}, {"loss": loss, "check.1": code}
'''.replace("PLACE", f"{LAST_PLACE}L").replace("LEAST", f"({LEAST_INDEX}L)")
EXECUTABLE = Executable(SOURCE, "<a test>", 192, 8, "c")
CHECK = IndexCheck("a.nn:3:5", "Embedding", 10, 1)
assert PLACES == 1 << 32


def program() -> NativeProgram:
    return NativeProgram(EXECUTABLE, Manifest("m", (), (), (), (), checks={"check.1": CHECK}))


def test_results_are_those_of_the_graph():
    loaded = program()
    arrays = {"x": np.arange(10, dtype=np.int32)}
    found = [
        (count, list(results), float(results["loss"]))
        for count, results in batches(loaded, "evaluate", arrays, np.arange(10), 8)
    ]
    assert found == [(8, ["loss"], 28.0), (2, ["loss"], 17.0)]


def test_an_index_outside_its_table_names_the_row():
    arrays = {"x": np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 9, 11], np.int32)}
    with pytest.raises(IndexOutside) as caught:
        list(batches(program(), "evaluate", arrays, np.arange(12), 4))
    message = str(caught.value)
    assert "a.nn:3:5" in message and "12, in row 9 of the test data" in message
    assert "batch 3 of 3" in message and "0 … 9" in message


def test_a_text_without_its_function():
    forged = replace(EXECUTABLE, source=SOURCE.replace("void evaluate(", "void other("))
    loaded = NativeProgram(forged, Manifest("m", (), (), (), ()))
    with pytest.raises(RuntimeUserError, match="lacks its function"):
        loaded.run("evaluate", 1)


def test_an_error_after_which_it_runs_again():
    loaded = program()
    with pytest.raises(IndexOutside):
        list(batches(loaded, "evaluate", {"x": np.array([99], np.int32)}, np.arange(1), 1))
    list(batches(loaded, "evaluate", {"x": np.array([9], np.int32)}, np.arange(1), 1))


# What source may contain ----------------------------------------------------------------------------------------------

IMPORT = "from runtime.native.library import Graph\n"


def test_only_programs_in_c_have_graphs_in_c():
    checked_code(SOURCE, "<a test>", NATIVE_PROGRAMS)
    with pytest.raises(RefusedSource):
        checked_code(SOURCE, "<a test>", CPU_PROGRAMS)


@pytest.mark.parametrize(
    "line",
    [
        'f = Graph("text", "g", 0)',
        'f = Graph("text", "f", -1)',
        'f = Graph("text", "f", 1.5)',
        'f = Graph("text", "f", True)',
        f'f = Graph("text", "f", {1 << 31})',
        f'f = Graph("text", "f", {10**300})',
        'f = Graph("\\ud800", "f", 0)',
        'f = Graph("text", "f; g", 0)',
        'f = Graph("text", "f")',
        'f = Graph("text", "f", 0, 1)',
        'f = Graph("text", "f", workspace_bytes=0)',
        'f = Graph("text" + "more", "f", 0)',
        'f = Graph(np, "f", 0)',
        'Graph("text", "f", 0)',
        'def bind_f(arena, B):\n    return Graph("text", "f", 0)',
        "from runtime.native.library import compile_text",
        "from runtime.native.library import pool",
        "import ctypes",
    ],
)
def test_refused(line: str):
    with pytest.raises(RefusedSource):
        checked_code(f"import numpy as np\n{IMPORT}{line}\n", "<a test>", NATIVE_PROGRAMS)


# The cache ------------------------------------------------------------------------------------------------------------


def test_machine_code_comes_only_from_a_private_cache(tmp_path: Path):
    build = Build(EXECUTABLE, Manifest("m", (), (), (), ()), "", "")
    folder = tmp_path / "programs"
    folder.mkdir(mode=0o700)
    assert why_not_trusted(build, Cache(folder)) == ""
    folder.chmod(0o770)
    assert "others can write to it" in why_not_trusted(build, Cache(folder))
    hidden = replace(build, executable=replace(EXECUTABLE, target="numpy", initializer=EXECUTABLE))
    assert "others can write to it" in why_not_trusted(hidden, Cache(folder))
    assert why_not_trusted(replace(build, executable=replace(EXECUTABLE, target="numpy")), Cache(folder)) == ""
    folder.chmod(0o700)
    tmp_path.chmod(0o777)
    assert "the folder around it" in why_not_trusted(build, Cache(folder))
