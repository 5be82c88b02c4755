"""Models compiled for the GPU and for NumPy, and examples for them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from compiler.driver import Compilation, compile_tree, load_tree
from compiler.ir.types import NUMPY_NAMES
from runtime.datasets import describe
from runtime.program import Arrays, Manifest, Program
from tests.programs import ROOT

if TYPE_CHECKING:
    from runtime.device_program import DeviceProgram

BATCH = 8


@cache
def compiled(model: str, target: str, batch: int = BATCH) -> Compilation:
    """One of the five models; nobody may change it."""
    tree = load_tree(ROOT / "models" / f"{model}.nn", [("--batch", str(batch))])
    return compile_tree(tree, storage=describe("digits"), target=target)


def host_program(model: str, batch: int = BATCH) -> Program:
    found = compiled(model, "numpy", batch)
    return Program(found.executable, found.manifest)


def device_program(model: str, batch: int = BATCH, graphs: bool = True) -> DeviceProgram:
    from runtime.device_program import DeviceProgram

    found = compiled(model, "cupy", batch)
    return DeviceProgram(found.executable, found.manifest, graphs)


def examples(manifest: Manifest, count: int, targets: bool = True) -> Arrays:
    """Arbitrary inputs of a model, and targets if they are wanted."""
    generator = np.random.default_rng(count)
    result: Arrays = {}
    for each in (*manifest.inputs, *(manifest.targets if targets else ())):
        shape = (count, *(size for size in each.shape[1:] if size is not None))
        result[each.name] = generator.integers(0, manifest.classes.get(each.name, 256), shape, NUMPY_NAMES[each.dtype])
    return result
