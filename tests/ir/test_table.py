"""The table of ops: using it before it is filled is an error that says how to fill it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compiler.ir.op import known_ops, register
from compiler.ops import OPS
from tests.programs import ROOT

EMPTY_TABLE = """
from compiler.ir.builder import Builder
from compiler.ir.graph import Graph
Builder(Graph("g")).emit("iota", [], {"size": 3})
"""


def test_an_empty_table_names_the_import_that_fills_it():
    result = subprocess.run([sys.executable, "-c", EMPTY_TABLE], cwd=ROOT, capture_output=True, text=True)
    assert "LookupError: the table of ops is empty: `import compiler.ops` fills it" in result.stderr


def test_a_second_op_of_one_name_is_refused():
    assert known_ops() is OPS
    with pytest.raises(AssertionError, match="two ops are named exp"):
        register(OPS["exp"])
