"""IR as text: printing, reading back and printing again gives the same bytes, whatever the hash seed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compiler.ir.graph import Module
from compiler.ir.printer import print_module
from compiler.ir.reader import read_module
from compiler.ir.verifier import verify_module
from compiler.passes.pipeline import run_pass
from tests.delicate import DELICATE, delicate_graph
from tests.programs import MODELS, PIPELINES, ROOT, compiled_model

SEEDS = range(10)
HASH_SCRIPT = """
import hashlib, sys
from compiler.driver import compile_tree, load_tree
from compiler.ir.printer import print_module
for model in sys.argv[1:]:
    for target in ("numpy", "cupy"):
        compiled = compile_tree(load_tree(f"models/{model}.nn"), target=target)
        text = print_module(compiled.module) + print_module(compiled.optimized) + compiled.executable.source
        print(model, target, hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.parametrize("target", PIPELINES)
@pytest.mark.parametrize("model", MODELS)
def test_print_read_print_is_the_identity(model: str, target: str):
    """After differentiation and after every pass."""
    module = compiled_model(model).module
    assert_reads_back(module, "differentiation")
    for each in PIPELINES[target]:
        module = run_pass(each, module)
        assert_reads_back(module, each.name)


@pytest.mark.parametrize("name", DELICATE)
def test_print_read_print_is_the_identity_for_delicate_graphs(name: str):
    assert_reads_back({"step": delicate_graph(name)}, "reading")


def assert_reads_back(module: Module, stage: str) -> None:
    text = print_module(module)
    again = read_module(text)
    assert print_module(again) == text, stage
    verify_module(again, "reading")


def test_text_and_source_do_not_depend_on_hash_seeds():
    def run(seed: str) -> str:
        command = [sys.executable, "-c", HASH_SCRIPT, *MODELS]
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    assert len({run(str(seed)) for seed in SEEDS}) == 1
