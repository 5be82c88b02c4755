"""CuPy: source with CUDA kernels, which runs on an NVIDIA GPU."""

from __future__ import annotations

from compiler.passes.materialize import materialize_apart
from compiler.passes.pipeline import Pass
from compiler.passes.pooling import pool_early
from compiler.passes.scans_together import bring_scans_together
from compiler.targets.cupy.grouping import make_kernels, reasons
from compiler.targets.cupy.im2col import multiply_patches
from compiler.targets.cupy.placement import PLACEMENT
from compiler.targets.cupy.writer import generate
from compiler.targets.shared.index_status import note_indices
from compiler.targets.shared.passes import COMBINING, SIMPLIFYING
from compiler.targets.target import Target
from runtime.program import CHECK, METRICS

INDEX_CHECKS, *OTHERS = SIMPLIFYING
PIPELINE = (
    INDEX_CHECKS,
    # the checks that are left become results like any other
    Pass("index-status", note_indices, required="a GPU cannot stop at an index outside its table", adds=CHECK),
    *OTHERS,
    Pass("pooling", pool_early),  # offsets are merged by now
    *COMBINING,  # convolution kernels support padding and groups directly
    Pass("materialize", materialize_apart, required="the memory plan relies on it"),
    Pass("kernels", make_kernels),  # regions, one launch each; copies become part of them
    Pass("scans-together", bring_scans_together),  # the order is final
)
OPTIONAL = ((Pass("im2col", multiply_patches), "sums-of-products"),)


TARGET = Target(
    "cupy",
    PIPELINE,
    PLACEMENT,
    generate,
    lambda module: None,  # any region can run: as one kernel, or as a map that computes each result separately
    reasons,
    OPTIONAL,
    on_host=("init", METRICS),  # run rarely; init has ops without a GPU kernel: normal random numbers, QR
)
