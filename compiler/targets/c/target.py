"""C: source with a text of C for each graph, compiled for this machine."""

from __future__ import annotations

from compiler.passes.materialize import materialize_apart
from compiler.passes.pipeline import Pass
from compiler.passes.pooling import pool_early
from compiler.passes.scans_together import bring_scans_together
from compiler.targets.c.grouping import reasons, regions
from compiler.targets.c.placement import PLACEMENT
from compiler.targets.c.writer import generate, line_comment, place_of, workspace_in
from compiler.targets.running import late
from compiler.targets.shared.index_status import note_indices
from compiler.targets.shared.passes import COMBINING, SIMPLIFYING
from compiler.targets.target import Target
from runtime.program import CHECK, METRICS

INDEX_CHECKS, *OTHERS = SIMPLIFYING
PIPELINE = (
    INDEX_CHECKS,
    # the checks that are left become results like any other
    Pass("index-status", note_indices, required="a program in C reports indices after the step", adds=CHECK),
    *OTHERS,
    Pass("pooling", pool_early),  # offsets are merged by now
    *COMBINING,  # the templates support padding and groups directly
    Pass("materialize", materialize_apart, required="the memory plan relies on it"),
    Pass("regions", regions),  # one function each; copies become part of them
    Pass("scans-together", bring_scans_together),  # the order is final
)

TARGET = Target(
    "c",
    PIPELINE,
    PLACEMENT,
    generate,
    lambda module: None,  # any region can run: as one function, in the worst case element by element
    reasons,
    workspace=workspace_in,
    standalone=late("compiler.targets.c.standalone", "standalone"),
    heading=lambda origin: line_comment(place_of(origin)),
    graph_begins="{} = Graph(",
    on_host=("init", METRICS),  # run rarely, so that compiling them would take longer
)
