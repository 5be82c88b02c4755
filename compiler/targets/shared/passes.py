"""The passes that every target begins with: they are not about how a target computes."""

from __future__ import annotations

from compiler.passes.batch_norm_folding import fold_batch_norms
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.constant_folding import fold_constants
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.pipeline import Pass
from compiler.passes.scan_hoisting import hoist_from_scans
from compiler.passes.simplify import simplify

SIMPLIFYING = (
    Pass("scan-hoisting", hoist_from_scans),  # first: what leaves a body is then treated like everything else
    Pass("dead-code", remove_dead_code),  # autodiff leaves gradients that nothing uses
    Pass("common-subexpressions", merge_common_subexpressions),  # equations must see which operands are the same
    Pass("constant-folding", fold_constants),  # elaboration leaves numbers, which the equations are about
    Pass("simplify", simplify),  # after scan-hoisting, which knows sums in loops by their plain form
    Pass("dead-code", remove_dead_code),  # what the equations made unused; the next counts the readers of a product
    Pass("batch-norm-folding", fold_batch_norms),  # while there are convolutions, and factors come right after them
)
