"""The recipe "Adding an op" of docs/development.md, followed to the letter in a copy of the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.programs import ROOT

MOST_EDITS = 5
COPIED = ("compiler", "runtime", "tests", "docs", "models", "README.md", "pyproject.toml")
EDIT = re.compile(r"^ *```diff\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
# Of the new op: types against the reference, finite differences, errors; NumPy code against the interpreter, code for
# each target; and the documents that list ops and builtins.
TESTS = ("ops/test_ops.py", "targets/test_against_interpreter.py", "targets/test_allowed.py", "docs/test_documents.py")
SELECTED = "{name} or every or is_emitted"
MODEL = """
model M(x: f32[B, 3]) {{
  param w: f32[3] = ones
  return {name}(x * w) * {name}(0.5)
}}
train M {{ loss = mean_squared_error; optimizer = SGD(lr=0.1) }}
"""
SCRIPT = """
import numpy as np
from compiler.driver import compile_file
from compiler.ops import OPS
from tests.fuzz.proposals import PROPOSALS
from tests.programs import ROOT, initialized, run_program

assert ROOT.samefile(".") and "{name}" in PROPOSALS
x = np.linspace(0.1, 0.9, 6, dtype=np.float32).reshape(2, 3)
found = run_program(initialized(compile_file("model.nn")), "predict", {{"x": x}}, 2)
np.testing.assert_allclose(found["output"], OPS["{name}"].reference(x) * OPS["{name}"].reference(0.5), rtol=1e-6)
"""


def edits() -> list[tuple[str, str, str]]:
    """File, existing lines, and their replacement."""
    section = (ROOT / "docs/development.md").read_text().partition("## Adding an op\n")[2].partition("\n## ")[0]
    found = []
    for block in EDIT.findall(section):
        file, *lines = dedent(block).splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
        found.append((file, before, "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")))
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the edits of the recipe."""
    folder = tmp_path_factory.mktemp("recipe")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy2(ROOT / name, folder / name)
    for file, before, after in edits():
        text = (folder / file).read_text()
        assert text.count(before) == 1, f"{file} does not have these lines once:\n{before}"
        (folder / file).write_text(text.replace(before, after))
    return folder


def run(folder: Path, *arguments: str) -> str:
    result = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert not result.returncode, result.stdout + result.stderr
    return result.stdout


def name_of_the_op() -> str:
    (name,) = re.findall(r'^    unary\(\n        "(\w+)",$', edits()[0][2], re.MULTILINE)
    return name


def test_the_recipe_has_few_edits():
    assert 0 < len(edits()) <= MOST_EDITS


def test_the_tests_of_the_new_op_pass(copy: Path):
    name = name_of_the_op()
    files = [f"tests/{file}" for file in TESTS]
    output = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SELECTED.format(name=name), *files)
    passed = re.search(r"(\d+) passed", output)
    assert passed and int(passed[1]) > 40, output


def test_models_and_the_fuzzer_can_use_the_new_op(copy: Path):
    name = name_of_the_op()
    (copy / "model.nn").write_text(MODEL.format(name=name))
    run(copy, "-c", SCRIPT.format(name=name))
    assert f"{name}f(" in run(copy, "-m", "compiler", "emit", "model.nn", "--target", "cupy")
