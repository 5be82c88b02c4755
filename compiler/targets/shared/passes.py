"""Passes that targets run alike: first those that do not depend on how a target computes, later those that combine."""

from __future__ import annotations

from compiler.passes.batch_norm_folding import fold_batch_norms
from compiler.passes.common_subexpressions import merge_common_subexpressions
from compiler.passes.constant_folding import fold_constants
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.index_checks import remove_index_checks
from compiler.passes.parameter_folding import fold_parameters
from compiler.passes.pipeline import Pass
from compiler.passes.scan_hoisting import hoist_from_scans
from compiler.passes.simplify import simplify
from compiler.passes.sums_of_products import sum_products

SIMPLIFYING = (
    Pass("index-checks", remove_index_checks, of_module=True),  # first: inputs are still as in the data
    Pass("scan-hoisting", hoist_from_scans),  # early: later passes then treat what leaves a body like everything else
    Pass("dead-code", remove_dead_code),  # autodiff leaves unused gradients
    Pass("common-subexpressions", merge_common_subexpressions),  # equations need equal operands to be one value
    Pass("constant-folding", fold_constants),  # elaboration leaves numbers, which the equations match
    Pass("simplify", simplify),  # after scan-hoisting, which recognizes sums in loops by their plain form
    Pass("dead-code", remove_dead_code),  # after the equations; the next pass counts the readers of a product
    Pass("batch-norm-folding", fold_batch_norms),  # while convolutions exist and factors directly follow them
)
# After pooling and convolutions became ops that the target has kernels for.
COMBINING = (
    Pass("simplify", simplify),  # offsets that batch-norm-folding brought together, and the shapes of new products
    Pass("common-subexpressions", merge_common_subexpressions),  # forward and backward share patches; schedules repeat
    Pass("sums-of-products", sum_products),  # before later passes look at the readers of products
    Pass("dead-code", remove_dead_code),  # what is no longer used
    Pass("fold-parameters", fold_parameters, of_module=True),  # everything that depends only on variables is known now
)
