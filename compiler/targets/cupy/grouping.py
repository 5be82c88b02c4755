"""kernels: nodes that one GPU kernel can compute become a region, `fused`, and thus one launch.

    a = f(x); b = g(a, y); c = sum(b)        →   b, c = fused(x, y) { a = f(x); b = g(a, y); c = sum(b) }
    a = slice(x); b = f(a); c = g(a)         →   b = fused(x) { … }; c = fused(x) { a = slice(x); c = g(a) }
    w = w - lr * dw; v = v - lr * dv         →   w, v = fused(w, dw, v, dv) { … }      updates are all one kernel

A region is anything that one kernel can compute (targets/c_text/regions.py): elements of one shape, with others
that recompute little, or reductions of one shape with the nodes that depend on them. Views, indices and scalars that do
not depend on a reduction cost nothing and are computed again in every region that reads them. A convolution includes
functions of its single elements. Products, gradients of filters and scans stay alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import CONVOLUTION
from compiler.targets.c_text.grouping import Grouping, make_regions, reasons_of
from compiler.targets.c_text.regions import is_convolution_with_epilogue, reduces, reduction_of
from compiler.targets.cupy.regions import DeviceReduction
from compiler.targets.shared.regions import Region

EXTRA_WORK = 2_000_000  # elements that may be computed twice: cheaper than a launch


class Kernels(Grouping):
    """Groups that one GPU kernel computes."""

    alone = ("matmul", "conv2d_filter_grad", "scan", "orthogonalize", "scatter_add")
    most_nodes = 200
    most_arrays = 40  # all parameters must fit into 4 KB

    def fits(self, one: int, other: int, nodes: Sequence[Node], region: Graph) -> str:
        if any(CONVOLUTION in node.op.traits for node in nodes):
            views = [value.node for value in region.inputs if value.node in self.free]
            if not set(region.nodes).isdisjoint(self.read_by(views)):
                return "a convolution reads memory, so not a view of a value computed in its region"
            fits = is_convolution_with_epilogue(region)
            return "" if fits else "a convolution can only include functions of its single elements"
        if not any(map(reduces, nodes)):
            again = self.work(nodes) - self.work(self.members[one]) - self.work(self.members[other])
            return "too much would be computed twice" if again > EXTRA_WORK else ""
        reduction = reduction_of(region.nodes, region.outputs, DeviceReduction)
        if reduction is None:
            return "a kernel reduces one shape along the same axes, and its results have that shape or the reduced one"
        waits = "nodes that depend on a sum over many elements have to wait for all blocks that share it"
        return "" if reduction.pays else waits


def make_kernels(graph: Graph) -> Graph:
    """See the file's docstring. Existing regions are inlined first."""
    return make_regions(Kernels, graph)


def reasons(graph: Graph, regions: Sequence[Region], in_scan: bool) -> Callable[[Node, Value, Node], str]:
    """Why two neighbours of a graph are not in one of its regions."""
    return reasons_of(Kernels, graph, regions)
