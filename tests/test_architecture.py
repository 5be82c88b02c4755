"""The shape of the code base, as rules: who may import whom, and what stays out of the way until it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import ROOT

# Each part may import the parts before it.
LAYERS = ["diagnostics", "language", "ir", "ops", "autodiff", "elaborate", "passes", "memory", "codegen"]
# ops and ir know each other: the builder asks the table, a gradient rule builds IR; scan differentiates its body.
FRIENDS = {("ir", "ops"), ("ops", "autodiff"), ("passes", "memory")}
SOURCES = sorted([*ROOT.glob("compiler/**/*.py"), *ROOT.glob("runtime/**/*.py")])
HEAVY = ("numpy", "lark", "rich", "safetensors", "cupy", "urllib.request")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    for name in imports(path):
        top, *inner = name.split(".")
        assert not (package == "runtime" and top == "compiler"), f"the runtime imports {name}"
        assert top != "cupy" or path == ROOT / "runtime/gpu/cuda.py", "only one file imports CuPy"
        here, there = rest[0], inner[0] if inner else ""
        if package == top == "compiler" and here in LAYERS and there in LAYERS:
            assert LAYERS.index(there) <= LAYERS.index(here) or (here, there) in FRIENDS, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_what_it_is_for(path: Path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "no docstring"


def test_help_loads_nothing_heavy():
    script = f"""
import sys
sys.argv = ["nnc", "--help"]
try:
    from compiler.__main__ import main
    main()
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


def test_nothing_is_unpickled():
    for path in SOURCES:
        assert "pickle" not in set(imports(path))
        assert "allow_pickle=True" not in path.read_text()
