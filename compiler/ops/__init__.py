"""The primitive ops: all that the compiler knows about tensors; everything else is written in the language.

Importing this package fills the table `OPS`. What each op means is in docs/ir.md.
"""

from compiler.ir.op import OPS, register
from compiler.ops import (
    control,
    convolution,
    elementwise,
    fusion,
    indexing,
    linear,
    pooling,
    randomness,
    reductions,
    shapes,
)

for group in (elementwise, reductions, shapes, linear, convolution, pooling, indexing, randomness, control, fusion):
    register(*group.OPS)

__all__ = ["OPS"]
