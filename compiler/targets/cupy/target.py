"""CuPy: source with CUDA kernels, which runs on an NVIDIA GPU."""

from __future__ import annotations

from compiler.ir.graph import Module
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.materialize import materialize_apart
from compiler.passes.parameter_folding import fold_parameters
from compiler.passes.pipeline import Pass
from compiler.passes.pooling import pool_early
from compiler.passes.scans_together import bring_scans_together
from compiler.passes.simplify import simplify
from compiler.passes.sums_of_products import sum_products
from compiler.targets.cupy.grouping import make_kernels, reasons
from compiler.targets.cupy.im2col import multiply_patches
from compiler.targets.cupy.placement import PLACEMENT
from compiler.targets.cupy.writer import generate
from compiler.targets.shared.passes import SIMPLIFYING
from compiler.targets.target import Target

PIPELINE = (
    *SIMPLIFYING,
    Pass("pooling", pool_early),  # offsets are merged by now
    Pass("simplify", simplify),  # convolution kernels support padding and groups directly
    Pass("common-subexpressions", merge_common_subexpressions),
    Pass("sums-of-products", sum_products),
    Pass("dead-code", remove_dead_code),
    Pass("fold-parameters", fold_parameters, of_module=True),
    Pass("materialize", materialize_apart, required="the memory plan relies on it"),
    Pass("kernels", make_kernels),  # regions, one launch each; copies become part of them
    Pass("scans-together", bring_scans_together),  # the order is final
)
OPTIONAL = ((Pass("im2col", multiply_patches), "sums-of-products"),)


def check(module: Module) -> None:
    """Any region can run: as one kernel, or as a map that computes each result separately."""


TARGET = Target(
    "cupy",
    PIPELINE,
    PLACEMENT,
    generate,
    check,
    reasons,
    OPTIONAL,
    on_host=("init",),  # runs once, with ops that have no GPU kernel: normal random numbers, QR
)
