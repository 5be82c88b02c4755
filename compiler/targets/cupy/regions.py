"""How a region with reductions is divided among blocks of threads.

If there is only one round of reductions, several blocks share the elements of a kept position, and the last block to
finish adds their results in a fixed order.
"""

from __future__ import annotations

from compiler.ir.types import TensorType, extent
from compiler.targets.c_text.regions import Reduction, typical

THREADS = 256  # of a block
WARP = 32
BLOCKS = 264  # that fill a large GPU: two for each of 132 multiprocessors
EACH = 8  # elements for a thread, at least, before they are divided among more blocks
MOST_FOR_A_BLOCK = 4096  # elements along the axes, if one block goes over all of them


class DeviceReduction(Reduction):
    """A region with reductions as one kernel."""

    @property
    def columns(self) -> int:
        """Kept positions of a block."""
        if self.along_last:
            return THREADS // power_of_two(typical(self.reduced_shape), THREADS)
        return power_of_two(typical(self.kept_shape), WARP)

    @property
    def reducers(self) -> int:
        """Threads of a block that share a kept position."""
        return THREADS // self.columns

    @property
    def chunks(self) -> int:
        """Blocks that share a kept position: several only if nothing but results of one round depends on them."""
        first = self.rounds[0]
        if len(self.rounds) > 1 or self.totals or self.waiting or extent(self.kept_shape).power:
            return 1
        if len({node.result.type.dtype for node in first}) > 1 or any(node.op.reduces == "argmax" for node in first):
            return 1
        wide = -(-typical(self.kept_shape) // self.columns)
        return max(1, min(typical(self.reduced_shape) // (self.reducers * EACH), BLOCKS // wide))

    @property
    def pays(self) -> bool:
        """Whether enough blocks share the work."""
        return self.chunks > 1 or typical(self.reduced_shape) <= MOST_FOR_A_BLOCK

    @property
    def scratch(self) -> TensorType | None:
        """Where blocks leave the partial results that the last one adds."""
        if self.chunks > 1:
            return TensorType(self.rounds[0][0].result.type.dtype, (self.chunks, len(self.rounds[0]), *self.kept_shape))
        if self.totals:
            return TensorType(self.totals[0].result.type.dtype, (len(self.totals), *self.kept_shape))
        return None


def power_of_two(count: int, most: int) -> int:
    """The smallest power of two not below a number, or `most`."""
    return min(1 << max(0, count - 1).bit_length(), most)
