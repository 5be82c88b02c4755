"""NumPy: source that runs on any CPU, in tiles on several threads."""

from __future__ import annotations

from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.materialize import materialize_outputs
from compiler.passes.parameter_folding import fold_parameters
from compiler.passes.pipeline import Pass
from compiler.passes.pooling import pool_early
from compiler.passes.scans_together import bring_scans_together
from compiler.passes.simplify import simplify
from compiler.passes.sums_of_products import sum_products
from compiler.planning.memory import Placement
from compiler.targets.numpy.convolutions import lower_convolutions
from compiler.targets.numpy.ops import scratch_of
from compiler.targets.numpy.order import preferred_order, view
from compiler.targets.numpy.regions import fuse, reasons
from compiler.targets.numpy.tiles import check_regions, place_region
from compiler.targets.numpy.writer import generate
from compiler.targets.running import late
from compiler.targets.shared.passes import SIMPLIFYING
from compiler.targets.target import Target

PIPELINE = (
    *SIMPLIFYING,
    Pass(
        "pooling", pool_early, required="NumPy has no kernel that searches for maxima again"
    ),  # offsets are one by now
    Pass("convolutions", lower_convolutions, required="NumPy's kernels take no padding and no groups"),
    Pass("simplify", simplify),  # offsets that the folding brought together, and the shapes of products
    Pass("common-subexpressions", merge_common_subexpressions),  # forward and backward share patches; schedules repeat
    Pass("sums-of-products", sum_products),  # before anything asks who reads the products
    Pass("dead-code", remove_dead_code),  # once more what is not used any longer
    Pass("fold-parameters", fold_parameters, of_module=True),  # all that depends on the variables alone is known by now
    Pass("fusion", fuse),  # what is left has to be computed: in tiles that stay in the cache
    Pass("scans-together", bring_scans_together),  # the order is final but for copies
    Pass("materialize", materialize_outputs, required="the memory plan relies on it"),  # last: nothing may undo it
)

PLACEMENT = Placement(scratch_of, preferred_order, view, place_region)
STANDALONE = late("compiler.targets.numpy.standalone", "standalone")
TARGET = Target("numpy", PIPELINE, PLACEMENT, generate, check_regions, reasons, standalone=STANDALONE)
