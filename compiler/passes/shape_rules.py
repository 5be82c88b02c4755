"""Rules for ops that move elements, for `simplify`: each states its equation and returns the right side, or None."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from compiler.ir.builder import Builder
from compiler.ir.graph import Literal, Node, Value
from compiler.ir.types import Dim, broadcast_shapes, extent
from compiler.passes.equations import stretched

Rule = Callable[[Builder, Node], Value | None]
ONE = extent(())


def made_by(value: Value, name: str) -> Node | None:
    """The node that computes a value, if it is an application of this op."""
    return value.node if value.node is not None and value.node.op.name == name else None


def unstretched(value: Value) -> Value:
    """The value that another repeats along more axes, by broadcasts and by reshapes that add leading axes of 1."""
    while value.node is not None:
        (source, *_), shape = value.node.operands or [value], value.type.shape
        leading = (1,) * (len(shape) - source.type.rank)
        stretch = value.node.op.name == "broadcast"
        if not stretch and not (value.node.op.name == "reshape" and shape == (*leading, *source.type.shape)):
            break
        value = source
    return value


def unbroadcast(builder: Builder, node: Node) -> Value | None:
    """f(broadcast(x), y) = f(x, y), or broadcast(f(x, y)) if y is smaller too: elementwise ops."""
    sources = [unstretched(operand) for operand in node.operands]
    if sources == node.operands:
        return None
    shape = node.result.type.shape
    least = broadcast_shapes(*(source.type.shape for source in sources))
    if least != shape and extent(least) == extent(shape):
        return None  # this would only remove axes of 1
    return stretched(builder, builder.emit(node.op.name, sources, node.attributes), shape)


def uniform(builder: Builder, node: Node) -> Value | None:
    """view(broadcast(x)) = broadcast(x) to another shape, if x is one number: views."""
    (operand,), shape = node.operands, node.result.type.shape
    source = unstretched(operand)
    known = isinstance(operand, Literal) and node.op.name != "broadcast"
    if extent(source.type.shape) != ONE or (source is operand and not known):
        return None
    return stretched(builder, builder.reshape(source, shape=()) if source.type.shape else source, shape)


def unchanged(builder: Builder, node: Node) -> Value | None:
    """f(x) = x, for an op that keeps the elements, if it keeps the type as well."""
    return node.operands[0] if node.result.type == node.operands[0].type else None


def reshape_of_reshape(builder: Builder, node: Node) -> Value | None:
    """reshape(reshape(x)) = reshape(x)"""
    inner = made_by(node.operands[0], "reshape")
    return inner and builder.reshape(inner.operands[0], shape=node.result.type.shape)


def broadcast_of_broadcast(builder: Builder, node: Node) -> Value | None:
    """broadcast(broadcast(x)) = broadcast(x)"""
    source = unstretched(node.operands[0])
    return None if source is node.operands[0] else builder.broadcast(source, shape=node.result.type.shape)


def identical_transpose(builder: Builder, node: Node) -> Value | None:
    """transpose(x) = x, if every axis stays"""
    return node.operands[0] if node.attributes["permutation"] == tuple(range(node.result.type.rank)) else None


def transpose_of_transpose(builder: Builder, node: Node) -> Value | None:
    """transpose(transpose(x)) = transpose(x)"""
    if (inner := made_by(node.operands[0], "transpose")) is None:
        return None
    first = inner.attributes["permutation"]
    return builder.transpose(inner.operands[0], permutation=tuple(first[i] for i in node.attributes["permutation"]))


def no_flip(builder: Builder, node: Node) -> Value | None:
    """flip(x) = x, along no axes"""
    return None if node.attributes["axes"] else node.operands[0]


def flip_of_flip(builder: Builder, node: Node) -> Value | None:
    """flip(flip(x)) = x, along the same axes"""
    inner = made_by(node.operands[0], "flip")
    return inner.operands[0] if inner and inner.attributes == node.attributes else None


def slice_of_concat(builder: Builder, node: Node) -> Value | None:
    """slice(concat(x, y)) = slice(x), if it is within x"""
    if (joined := made_by(node.operands[0], "concat")) is None:
        return None
    axis, start, stop = joined.attributes["axis"], node.attributes["start"], node.attributes["stop"]
    ends = list(accumulate(int(part.type.shape[axis]) for part in joined.operands))  # type: ignore[arg-type]
    for part, begin, end in zip(joined.operands, [0, *ends], ends, strict=False):
        if begin <= start[axis] and stop[axis] <= end:
            start, stop = (replaced(limits, axis, limits[axis] - begin) for limits in (start, stop))
            return builder.slice(part, start=start, stop=stop, step=node.attributes["step"])
    return None


def replaced(items: tuple, index: int, item: Dim) -> tuple:
    return (*items[:index], item, *items[index + 1 :])


def concat_of_concat(builder: Builder, node: Node) -> Value | None:
    """concat(x, concat(y, z)) = concat(x, y, z), along the same axis"""
    inner = [made_by(part, "concat") for part in node.operands]
    if not any(each and each.attributes == node.attributes for each in inner):
        return None
    pairs = zip(inner, node.operands, strict=True)
    parts = [each.operands if each and each.attributes == node.attributes else [part] for each, part in pairs]
    return builder.concat(*(value for values in parts for value in values), axis=node.attributes["axis"])


def sum_of_pads(builder: Builder, node: Node) -> Value | None:
    """add(pad(x), pad(y)) = pad(concat(x, y)), with zeros around and x and y side by side: the gradient of slices."""
    pads = [made_by(operand, "pad") for operand in node.operands]
    if not all(pad and is_zero_margin(pad) for pad in pads):
        return None
    first, second = sorted((pad for pad in pads if pad), key=lambda pad: pad.attributes["low"])
    (low, high), (low_2, high_2) = ((pad.attributes["low"], pad.attributes["high"]) for pad in (first, second))
    apart = [axis for axis in range(node.result.type.rank) if (low[axis], high[axis]) != (low_2[axis], high_2[axis])]
    if len(apart) != 1 or low[axis := apart[0]] + first.operands[0].type.shape[axis] != low_2[axis]:
        return None
    both = builder.concat(first.operands[0], second.operands[0], axis=axis)
    return builder.pad(both, low=low, high=high_2)


def is_zero_margin(pad: Node) -> bool:
    return pad.attributes["value"] == 0 and not any(pad.attributes["interior"])


SHAPE_RULES: dict[str, tuple[Rule, ...]] = {
    "stop_gradient": (unchanged,),
    "cast": (unchanged,),
    "reshape": (unchanged, reshape_of_reshape),
    "broadcast": (unchanged, broadcast_of_broadcast),
    "transpose": (identical_transpose, transpose_of_transpose),
    "flip": (no_flip, flip_of_flip),
    "slice": (unchanged, slice_of_concat),
    "concat": (unchanged, concat_of_concat),
    "pad": (unchanged,),
    "add": (sum_of_pads,),
}
