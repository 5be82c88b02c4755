"""Memory placement for CuPy programs: that of all C text, and scratch space for kernels that several blocks share."""

from __future__ import annotations

from compiler.ir.graph import Node
from compiler.ir.op import CONVOLUTION, REGION
from compiler.planning.memory import Placement, Scratch
from compiler.targets.c_text.placement import natural_order, place_region, useful_view
from compiler.targets.c_text.regions import is_convolution_with_epilogue, reduces, reduction_of
from compiler.targets.cupy.convolutions import convolution_of, scratch_of
from compiler.targets.cupy.regions import DeviceReduction
from compiler.targets.shared.regions import body_of


def kernel_scratch(node: Node) -> Scratch | None:
    """The scratch space of the kernel that runs a node."""
    if REGION not in node.op.traits and not reduces(node) and CONVOLUTION not in node.op.traits:
        return None
    body = node.body if REGION in node.op.traits else body_of(node)
    if is_convolution_with_epilogue(body):
        found = scratch_of(convolution_of(body))
    else:
        reduction = reduction_of(body.nodes, body.outputs, DeviceReduction)
        found = reduction.scratch if reduction else None
    return Scratch(found) if found else None


PLACEMENT = Placement(kernel_scratch, natural_order, useful_view, place_region)
