"""Generated source: names are safe, comments are one line, tracebacks show the statement that failed."""

from __future__ import annotations

import ast
import re
import traceback

import pytest

from compiler.driver import compile_file
from compiler.targets.shared.names import Names, comment
from runtime.program import Executable, load_functions
from tests.programs import MODELS, compile_text, compiled_model

HOSTILE = """
layer {layer}(units)(x: f32[B, n]) {{
  param {param}: f32[n, units] = glorot_uniform
  return x @ {param}
}}
model M({input}: f32[B, 4]) {{ return {input} |> {layer}(3) }}
"""


@pytest.mark.parametrize(
    "name", ["np", "kernels", "arena", "view", "run", "B_", "None_", "print", "lambda", "class_", "v0"]
)
def test_names_of_the_model_shadow_nothing(name: str):
    source = compile_text(HOSTILE.format(layer=f"L{name}", param=name, input=f"{name}_in")).executable.source
    stored = {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not stored & {"np", "kernels", "arena", "view", "run", "B", "print"}


def test_names_that_become_equal_stay_apart():
    names = Names()
    assert [names.fresh(n) for n in ("a.b_c", "a_b.c", "lambda", "2x", "é")] == [
        "a_b_c",
        "a_b_c_",
        "lambda_",
        "v2x",
        "v_",
    ]


def test_comments_are_one_printable_line():
    assert comment("a\nimport os\r\u2028x\x1b[31m") == "# a?import os??x?[31m"


def test_file_name_cannot_break_out(tmp_path):
    path = tmp_path / 'x"""\nraise SystemExit(99)\n# .nn'
    path.write_text("model M(x: f32[B, 2]) { return x }")
    source = compile_file(path).executable.source
    assert "raise SystemExit" not in [line.strip() for line in source.splitlines()]
    load_functions(Executable(source, "<test>", 0, 1, "numpy"))


@pytest.mark.parametrize("model", MODELS)
def test_every_statement_has_its_node_and_its_line(model: str):
    source = compiled_model(model).executable.source
    tree = ast.parse(source)
    lines = source.splitlines()
    runs = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "run"]
    assert len(runs) == len(compiled_model(model).optimized)
    statements = [s for run in runs for s in ast.walk(run) if isinstance(s, ast.Expr)]
    bare = [lines[s.lineno - 1] for s in statements if "# %" not in lines[s.lineno - 1]]
    # Lines without a node of their own: carries, second lines, and calls of scans that are functions.
    assert all(re.search(r"np\.copyto\(|\.fill\(|kernels\.together\(|\[", line) for line in bare), bare
    assert f"# {(compiled_model(model).tree.file)}:" in source


def test_traceback_shows_generated_line():
    program = "def bind_x(arena, B):\n    def run():\n        raise ValueError(1)  # %0\n    return run, {}, {}\n"
    run, _, _ = load_functions(Executable(program, "<nnc test>", 0, 1, "numpy"))["x"](None, 1)
    with pytest.raises(ValueError) as caught:
        run()
    assert "raise ValueError(1)  # %0" in "".join(traceback.format_exception(caught.value))
