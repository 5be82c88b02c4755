"""One element of pooling without branches, so that loops over channels become vectors: windows without padding."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product

from compiler.ir.graph import Node
from compiler.ir.types import TensorType
from compiler.ops.windows import NO_PADDING
from compiler.targets.c_text.elements import Elements
from compiler.targets.c_text.indices import ElementIndex, plus, quotient, remainder, size_of, times
from compiler.targets.c_text.scalars import constant, least
from compiler.targets.c_text.windows import pooled, routed, window_place


def pooled_without_branches(e: Elements, node: Node, index: ElementIndex, result: int) -> str:
    """The maximum of a window, and the number of its first tap; a NaN comes before all numbers."""
    if node.attributes["padding"] != NO_PADDING:
        return pooled(e, node, index, result)
    x = node.operands[0]
    best, tap_number = e.accumulator(x.type, least(x.type.dtype), "best"), ""
    if len(node.results) > 1:
        tap_number = e.accumulator(TensorType("i32"), "0", "tap")
    for number, tap in enumerate(product(*map(range, node.attributes["window"]))):
        value = e.at(x, (index[0], *window_place(node, index, tap), index[3]))
        if number == 0:
            e.write(f"{best} = {value};")
            continue
        better = e.fresh("better")
        nan = f" || ({best} == {best} && {value} != {value})" if x.type.is_float else ""
        e.write(f"const bool {better} = {value} > {best}{nan};")
        e.write(f"{best} = {better} ? {value} : {best};")
        if tap_number:
            e.write(f"{tap_number} = {better} ? {number} : {tap_number};")
    for each, text in zip(node.results, (best, tap_number), strict=False):
        e.blocks[-1][each, index] = text
    return (best, tap_number)[result]


def routed_without_branches(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """The gradient of the only window that covers a pixel, if its maximum is this pixel."""
    window, stride = node.attributes["window"], node.attributes["stride"]
    if node.attributes["padding"] != NO_PADDING or window != stride:
        return routed(e, node, index, 0)
    chosen, dy = node.operands
    place = tuple(quotient(index[axis + 1], stride[axis]) for axis in (0, 1))
    row, column = (remainder(index[axis + 1], stride[axis]) for axis in (0, 1))
    total = e.accumulator(dy.type, constant(0.0, dy.type.dtype), "routed")
    sizes = zip(place, dy.type.shape[1:3], node.result.type.shape[1:3], stride, strict=True)
    inside = [f"{at} < {size_of(count)}" for at, count, size, step in sizes if times_dim(count, step) != size]
    with e.block(f"if ({' && '.join(inside)})") if inside else nullcontext():
        here = (index[0], *place, index[3])
        number = f"(int)({plus(times(row, window[1]), column)})"
        e.write(f"{total} = {e.at(chosen, here)} == {number} ? {e.at(dy, here)} : {constant(0.0, dy.type.dtype)};")
    return total


def times_dim(count: object, step: int) -> object:
    return count * step if isinstance(count, int) else count


POOLING = {
    "max_pool2d": pooled_without_branches,
    "max_pool2d_with_index": pooled_without_branches,
    "max_pool2d_route": routed_without_branches,
}
