"""NumPy: source that runs on any CPU, in tiles on several threads."""

from __future__ import annotations

from compiler.passes.materialize import materialize_outputs
from compiler.passes.pipeline import Pass
from compiler.passes.pooling import pool_early
from compiler.passes.scans_together import bring_scans_together
from compiler.planning.memory import Placement
from compiler.planning.strides import view_strides
from compiler.targets.numpy.allocations import allocated
from compiler.targets.numpy.convolutions import lower_convolutions
from compiler.targets.numpy.ops import scratch_of
from compiler.targets.numpy.order import preferred_order
from compiler.targets.numpy.regions import fuse, reasons
from compiler.targets.numpy.tiles import check_regions, place_region
from compiler.targets.numpy.writer import generate
from compiler.targets.running import late
from compiler.targets.shared.passes import COMBINING, SIMPLIFYING
from compiler.targets.target import Target

PIPELINE = (
    *SIMPLIFYING,
    # offsets are merged by now
    Pass("pooling", pool_early, required="NumPy has no kernel that searches for the maxima again"),
    Pass("convolutions", lower_convolutions, required="NumPy's kernels support neither padding nor groups"),
    *COMBINING,
    Pass("fusion", fuse),  # everything left must be computed: in tiles that stay in the cache
    Pass("scans-together", bring_scans_together),  # the order is final except for copies
    Pass("materialize", materialize_outputs, required="the memory plan relies on it"),  # last: nothing may undo it
)

# Every view that NumPy can make is one, whatever reads it.
PLACEMENT = Placement(
    scratch_of, preferred_order, lambda node, strides, readers: view_strides(node, strides), place_region
)
STANDALONE = late("compiler.targets.numpy.standalone", "standalone")
TARGET = Target(
    "numpy", PIPELINE, PLACEMENT, generate, check_regions, reasons, allocated=allocated, standalone=STANDALONE
)
