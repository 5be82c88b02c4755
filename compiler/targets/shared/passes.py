"""The passes that every target runs first, since they do not depend on how it computes."""

from __future__ import annotations

from compiler.passes.batch_norm_folding import fold_batch_norms
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.constant_folding import fold_constants
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.pipeline import Pass
from compiler.passes.scan_hoisting import hoist_from_scans
from compiler.passes.simplify import simplify

SIMPLIFYING = (
    Pass("scan-hoisting", hoist_from_scans),  # first: later passes then treat what leaves a body like everything else
    Pass("dead-code", remove_dead_code),  # autodiff leaves unused gradients
    Pass("common-subexpressions", merge_common_subexpressions),  # equations need equal operands to be one value
    Pass("constant-folding", fold_constants),  # elaboration leaves numbers, which the equations match
    Pass("simplify", simplify),  # after scan-hoisting, which recognizes sums in loops by their plain form
    Pass("dead-code", remove_dead_code),  # after the equations; the next pass counts the readers of a product
    Pass("batch-norm-folding", fold_batch_norms),  # while convolutions exist and factors directly follow them
)
