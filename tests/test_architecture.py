"""The shape of the code base, as rules: who may import whom, and what is not imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from compiler.targets.registry import TARGETS
from tests.programs import ROOT

# The packages of the compiler, lowest first: each may import those before it, and the runtime.
PACKAGES = (
    "diagnostics",
    "timings",
    "language",
    "ir",
    "ops",
    "elaborate",
    "gradient",
    "passes",
    "planning",
    "targets.registry",
    "targets.shared",
    "targets.c_text",
    "targets.running",
    "targets.target",
    *(f"targets.{name}" for name in TARGETS),  # which do not import each other
    "driver",
    "reports",
    "numerics",
    "cli",
    "__main__",
)
# Where imports in functions are needed, and why. Nowhere else is one.
LATE = {
    "compiler/__main__.py": "a signal may come while the rest is imported",
    "compiler/cli/building.py": "a program from the cache needs no compiler",
    "compiler/cli/commands/run.py": "the report of a diverged step needs the compiler",
    "compiler/targets/c/running.py": "compiling and loading libraries is needed only to run a program in C",
    "compiler/targets/cupy/running.py": "CuPy is imported when a program is run on a GPU",
    "runtime/errors.py": "difflib: only errors need it",
    "runtime/datasets/mnist.py": "hashlib and downloads: only a first use needs them",
    "runtime/gpu/cublas.py": "not every CuPy brings it",
    "runtime/training/comparison.py": "safetensors: only verify-resume compares runs",
    "runtime/training/progress.py": "rich: only a terminal needs it",
    "runtime/training/tensor_files.py": "safetensors: the first checkpoint comes after the first step",
}
NUMPY_ITSELF = ("runtime/allowed.py", "runtime/training/conditions.py")  # they name the package, not the target
SOURCES = sorted([*ROOT.glob("compiler/**/*.py"), *ROOT.glob("runtime/**/*.py")])
HEAVY = ("numpy", "lark", "rich", "safetensors", "cupy", "urllib.request")
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever it does so: in functions and for type checkers too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def package_of(module: str) -> str:
    """`targets.numpy` of `compiler.targets.numpy.ops`; empty for the packages themselves."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["targets"] else parts[:1])


@each_source
def test_imports_point_one_way(path: Path):
    here, package = module_of(path), package_of(module_of(path))
    for name in imports(path):
        top = name.partition(".")[0]
        assert not (here.startswith("runtime") and top == "compiler"), f"the runtime imports {name}"
        assert top != "cupy" or path == ROOT / "runtime/gpu/cuda.py", "only one file imports CuPy"
        there = package_of(name) if top == "compiler" else ""
        if there and there != package:
            assert PACKAGES.index(there) < PACKAGES.index(package), f"{package} imports {name}"
            targets = {f"targets.{target}" for target in TARGETS}
            assert there not in targets, f"{name} is the business of its target"


def test_every_package_has_its_place():
    packages = {package_of(module) for module in MODULES if module.startswith("compiler.")} - {"targets"}
    assert packages == set(PACKAGES)


def test_no_imports_go_in_a_circle():
    graph = {module: {name for name in imports(path) if name in MODULES} - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@each_source
def test_imports_stand_at_the_top(path: Path):
    """But for start-up time, and then the file is on the list; none is for type checkers alone."""
    assert "TYPE_CHECKING" not in path.read_text()
    name = str(path.relative_to(ROOT))
    if name in LATE:
        return
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    late = [each for node in functions for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom)]
    assert not late, f"line {late[0].lineno}" if late else ""


@each_source
def test_nobody_asks_which_target_it_is(path: Path):
    """The name of a target is in its own folder, the registry and the flags: what differs is a field of its record."""
    name = str(path.relative_to(ROOT))
    if name in ("compiler/targets/registry.py", "compiler/cli/flags.py", *NUMPY_ITSELF):
        return
    texts = {node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)}
    if not any(isinstance(node, ast.Compare) and "target" in ast.unparse(node) for node in ast.walk(tree_of(path))):
        texts.discard("c")  # a letter that means many things, unless targets are compared
    found = [target for target in TARGETS if target in texts and not name.startswith(f"compiler/targets/{target}/")]
    assert not found


@each_source
def test_a_file_opens_with_what_it_is_for(path: Path):
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(tree_of(path)), "no docstring"


def test_no_two_classes_share_a_name():
    found: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


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
