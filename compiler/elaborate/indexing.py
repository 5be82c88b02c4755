"""`x[1:3, :, -1]` of a tensor, and `list[i]`."""

from __future__ import annotations

from typing import Any

from compiler.elaborate.arguments import whole
from compiler.elaborate.evaluator import Site
from compiler.elaborate.values import describe, is_tensor
from compiler.ir.graph import Value
from compiler.ir.types import Batch, Dim, TypeRuleError

WHOLE = slice(None)


def index(site: Site, target: Any, items: list[Any]) -> Any:
    """The element or part of a tensor or list at an index; raises TypeRuleError."""
    if isinstance(target, list):
        return index_list(target, items)
    if is_tensor(target):
        return index_tensor(site, target, items)
    raise TypeRuleError("this cannot be indexed", "a tensor or a list", describe(target))


def index_list(items: list[Any], indices: list[Any]) -> Any:
    if len(indices) != 1:
        raise TypeRuleError("a list takes one index", "1 index", f"{len(indices)}")
    (at,) = indices
    if isinstance(at, slice):
        start, stop, step = slice_bounds(at)
        if step == 0:
            raise TypeRuleError("the step is 0", "a step other than 0", "0")
        return items[start:stop:step]
    if not -len(items) <= whole(at, "the index") < len(items):
        expected = f"{-len(items)} to {len(items) - 1}" if items else "no index: the list is empty"
        raise TypeRuleError("the index is out of range", expected, str(at))
    return items[at]


def index_tensor(site: Site, target: Value, items: list[Any]) -> Value:
    """A slice along each axis; axes that are indexed by a number are dropped."""
    shape = target.type.shape
    if len(items) > len(shape):
        raise TypeRuleError("too many indices", f"at most {len(shape)}, for {target.type}", str(len(items)))
    starts, stops, steps, kept = [], [], [], []
    for axis, dim in enumerate(shape):
        item = items[axis] if axis < len(items) else WHOLE
        start, stop, step = bounds(item, dim)
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        if isinstance(item, slice):
            kept.append(dim if isinstance(dim, Batch) else max(0, -(-(stop - start) // step)))
    if tuple(stops) != shape or any(starts) or any(step != 1 for step in steps):
        target = site.emit("slice", target, start=tuple(starts), stop=tuple(stops), step=tuple(steps))
    return target if target.type.shape == tuple(kept) else site.emit("reshape", target, shape=tuple(kept))


def bounds(item: Any, dim: Dim) -> tuple[int, Any, int]:
    """Start, stop and step of one index along a dimension."""
    if item == WHOLE:
        return 0, dim, 1
    if isinstance(dim, Batch):
        found = "a slice" if isinstance(item, slice) else describe(item)
        raise TypeRuleError("the batch axis cannot be indexed or sliced", "`:` for this axis", found)
    if isinstance(item, slice):
        start, stop, step = slice_bounds(item)
        if step is not None and step < 1:
            raise TypeRuleError("the step is not positive", "1 or more (flip(x, axis) reverses an axis)", str(step))
        first, last, stride = slice(start, stop, step).indices(dim)
        return first, max(first, last), stride
    at = whole(item, "the index")
    if not -dim <= at < dim:
        expected = f"{-dim} to {dim - 1}" if dim else "no index: the axis is empty"
        raise TypeRuleError("the index is out of range", expected, str(at))
    return at % dim, at % dim + 1, 1


def slice_bounds(item: slice) -> tuple[int | None, int | None, int | None]:
    start, stop, step = (None if b is None else whole(b, "a bound") for b in (item.start, item.stop, item.step))
    return start, stop, step
