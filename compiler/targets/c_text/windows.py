"""One element of pooling, patches and their gradients: loops over the windows of images [N, H, W, C], written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from compiler.ir.graph import Node
from compiler.ir.types import Shape, TensorType
from compiler.targets.c_text.elements import RULES, Elements, within
from compiler.targets.c_text.indices import Coordinate, ElementIndex, minus, plus, quotient, size_of, times
from compiler.targets.c_text.scalars import constant, least


def window_place(node: Node, index: ElementIndex, tap: Sequence[Coordinate]) -> tuple[Coordinate, Coordinate]:
    """The row and column of the image under a tap of the window at an index."""
    stride, padding = node.attributes["stride"], node.attributes["padding"]
    dilation = node.attributes.get("dilation", (1, 1))
    row, column = (
        minus(plus(times(part, step), times(place, spread)), before)
        for part, step, place, spread, (before, _) in zip(index[1:3], stride, tap, dilation, padding, strict=True)
    )
    return row, column


def in_image(node: Node, shape: Shape, place: Sequence[Coordinate]) -> str:
    """The condition for a place to be within the image, if there is padding."""
    pairs = zip(place, shape[1:3], node.attributes["padding"], strict=True)
    return " && ".join(text for at, dim, sides in pairs if any(sides) for text in within(at, size_of(dim))) or "true"


def pooled(e: Elements, node: Node, index: ElementIndex, result: int) -> str:
    """The maximum of a window, and the number of its first tap."""
    x = node.operands[0]
    best = e.accumulator(x.type, least(x.type.dtype), "best")
    tap_number = e.accumulator(TensorType("i32"), "0", "tap")
    for tap in product(*map(range, node.attributes["window"])):
        here = tap[0] * node.attributes["window"][1] + tap[1]
        row, column = window_place(node, index, tap)
        with e.block(f"if ({in_image(node, x.type.shape, (row, column))})"):
            value = e.at(x, (index[0], row, column, index[3]))
            with e.block(f"if ({value} > {best} || {best} == {best} && {value} != {value})"):
                e.write(f"{best} = {value};")
                e.write(f"{tap_number} = {here};")
    for each, text in zip(node.results, (best, tap_number), strict=False):
        e.blocks[-1][each, index] = text
    return (best, tap_number)[result]


def covering(
    e: Elements, node: Node, index: ElementIndex, windows: Shape, window: Sequence[int], visit: Callable[..., None]
) -> None:
    """Calls `visit` with the tap and the place of every window that covers a pixel."""
    stride, padding = node.attributes["stride"], node.attributes["padding"]
    dilation = node.attributes.get("dilation", (1, 1))
    for tap in product(*map(range, window)):
        conditions: list[str] = []
        place: list[Coordinate] = []
        for axis in (0, 1):
            start = minus(plus(index[axis + 1], padding[axis][0]), tap[axis] * dilation[axis])
            at = quotient(start, stride[axis])
            conditions += [f"{start} >= 0"] if start != index[axis + 1] else []
            conditions += [f"({start}) % {stride[axis]} == 0"] if stride[axis] > 1 else []
            conditions += [f"{at} < {size_of(windows[axis + 1])}"]
            place.append(at)
        with e.block(f"if ({' && '.join(conditions)})"):
            visit(tap, (index[0], *place))


def routed(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """The gradients of the windows whose maximum is this pixel, in the order of the taps."""
    chosen, dy = node.operands
    total = e.accumulator(dy.type, constant(0.0, dy.type.dtype))

    def visit(tap: tuple[int, int], place: ElementIndex) -> None:
        here = tap[0] * node.attributes["window"][1] + tap[1]
        value = e.at(chosen, (*place, index[3]))
        with e.block(f"if ({value} == {here})"):
            e.write(f"{total} += {e.at(dy, (*place, index[3]))};")

    covering(e, node, index, dy.type.shape, node.attributes["window"], visit)
    return total


def pool_gradient(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """Like `routed`, but searches for the maxima again; the first NaN of a window is its maximum."""
    x, dy = node.operands
    total = e.accumulator(dy.type, constant(0.0, dy.type.dtype))

    def visit(tap: tuple[int, int], place: ElementIndex) -> None:
        here = e.at(x, index)
        first = e.accumulator(TensorType("bool"), "true", "first")
        for other in product(*map(range, node.attributes["window"])):
            row, column = window_place(node, (*place, index[3]), other)
            with e.block(f"if ({in_image(node, x.type.shape, (row, column))})"):
                value = e.at(x, (index[0], row, column, index[3]))
                if other != tap:
                    better = f"{value} >= {here} || " if other < tap else f"{value} > {here} || {here} == {here} && "
                    better += f"{value} != {value}"
                    e.write(f"{first} = {first} && !({better});")
        with e.block(f"if ({first})"):
            e.write(f"{total} += {e.at(dy, (*place, index[3]))};")

    covering(e, node, index, dy.type.shape, node.attributes["window"], visit)
    return total


def patch(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """patches: the pixel under a tap of a window, 0 in the padding."""
    x = node.operands[0]
    row, column = window_place(node, index, index[3:5])
    name = e.accumulator(x.type, constant(0.0, x.type.dtype), f"t{e.numbers[node.result]}")
    with e.block(f"if ({in_image(node, x.type.shape, (row, column))})"):
        e.write(f"{name} = {e.at(x, (index[0], row, column, index[5]))};")
    return name


def folded(e: Elements, node: Node, index: ElementIndex, _: int) -> str:
    """fold: the sum over all patches that contain a pixel, in the order of the taps."""
    parts = node.operands[0]
    total = e.accumulator(parts.type, constant(0.0, parts.type.dtype))

    def visit(tap: tuple[int, int], place: ElementIndex) -> None:
        e.write(f"{total} += {e.at(parts, (*place, *tap, index[3]))};")

    covering(e, node, index, parts.type.shape, parts.type.shape[3:5], visit)  # type: ignore[arg-type]
    return total


RULES.update(
    {
        "max_pool2d": pooled,
        "max_pool2d_with_index": pooled,
        "max_pool2d_grad": pool_gradient,
        "max_pool2d_route": routed,
        "patches": patch,
        "fold": folded,
    }
)
