"""The most floating-point operations per second that this processor can do, and those that a training step needs."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from compiler.driver import Compilation
from compiler.ir.graph import Node
from compiler.ir.op import LOOP, PRODUCT
from compiler.passes.pipeline import run_pipeline
from compiler.planning.costs import operations
from compiler.planning.memory import scan_length
from compiler.targets.shared.passes import SIMPLIFYING

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=fast", f"-I{ROOT / 'runtime' / 'native'}")
# The first that a compiler understands: wide vectors where they exist, for clang and zig without their checks.
VARIANTS = (("-mprefer-vector-width=512", "-fno-sanitize=all"), ("-mprefer-vector-width=512",), ())


def fma_peak(threads: int) -> float | None:
    """GFLOP/s of fused multiply-adds in registers, all threads together; None without a C compiler."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/peak"
        for compiler in compilers():
            for variant in VARIANTS if platform.machine() == "x86_64" else ((),):
                source = str(ROOT / "tests" / "bench" / "peak.c")
                command = [*compiler, *FLAGS, *variant, source, "-o", program, "-lpthread"]
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    return float(subprocess.run([program, str(threads)], capture_output=True, check=True).stdout)
    return None


def compilers() -> Iterator[list[str]]:
    """The C compilers of this machine, those that a user chose first."""
    if os.environ.get("CC"):
        yield shlex.split(os.environ["CC"])
    yield from ([name] for name in ("cc", "gcc", "clang") if shutil.which(name))
    if find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "cc"]


def product_operations(compilation: Compilation, batch: int) -> int:
    """Additions and multiplications of matrix products and convolutions in a training step.

    All else is left out: what is not a product cannot reach the peak, and a share of it would be flattering.
    """
    module = run_pipeline(compilation.module, SIMPLIFYING)
    return sum(operations_of(node, batch) for node in module["train_step"].nodes)


def operations_of(node: Node, batch: int) -> int:
    """Those of a product, or of all products in a scan."""
    if LOOP in node.op.traits:
        return scan_length(node, batch) * sum(operations_of(each, batch) for each in node.body.nodes)
    return operations(node, batch) if PRODUCT in node.op.traits else 0
