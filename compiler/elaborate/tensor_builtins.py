"""Builtins on tensors. Functions of numbers are computed at compile time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.elaborate.arguments import (
    axes_of,
    axis_of,
    boolean,
    dtype_of,
    number,
    pair,
    pairs,
    shape_of,
    tensor,
    whole,
)
from compiler.elaborate.arithmetic import binary, in_range
from compiler.elaborate.builtins import builtin, register
from compiler.elaborate.evaluator import Site
from compiler.elaborate.scans import scan_cell
from compiler.elaborate.values import Closure, describe, is_number, is_tensor, show_items
from compiler.ir.builder import literal
from compiler.ir.graph import Value
from compiler.ir.types import Batch, Dim, TypeRuleError, extent
from compiler.ops import OPS

NO_PADDING = [[0, 0], [0, 0]]

# Elementwise ----------------------------------------------------------------------------------------------------------


def register_unary(name: str, on_number: Callable[[float], float]) -> None:
    def apply(site: Site, x: Any) -> Any:
        if not is_number(x):
            return site.emit(name, tensor(site, x))
        try:
            return in_range(on_number(x), f"{name}({x})")
        except (ValueError, OverflowError):
            raise TypeRuleError("not defined for this number", found=str(x)) from None

    register(name, apply)


for _op in OPS.values():
    if _op.on_number is not None:
        register_unary(_op.name, _op.on_number)


def register_extremum(name: str, on_numbers: Callable[..., Any]) -> Callable[[Site, Any, Any], Any]:
    def apply(site: Site, a: Any, b: Any) -> Any:
        if is_number(a) and is_number(b):
            return on_numbers(a, b)
        dtype = next((each.type.dtype for each in (a, b) if is_tensor(each)), "f32")
        return site.emit(name, *(each if is_number(each) else tensor(site, each, dtype) for each in (a, b)))

    register(name, apply)
    return apply


maximum = register_extremum("max", max)
minimum = register_extremum("min", min)


@builtin
def clip(site: Site, x: Any, low: Any, high: Any) -> Any:
    if is_tensor(x) and x.type.is_float and is_number(low) and is_number(high):
        return site.emit("clip", x, low=float(low), high=float(high))
    return minimum(site, maximum(site, x, low), high)


@builtin
def where(site: Site, condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    dtype = next((each.type.dtype for each in (a, b) if is_tensor(each)), "f32")
    return site.emit("select", tensor(site, condition), tensor(site, a, dtype), tensor(site, b, dtype))


@builtin
def cast(site: Site, x: Any, dtype: Any) -> Any:
    return site.cast(tensor(site, x), dtype_of(dtype))


@builtin
def stop_gradient(site: Site, x: Any) -> Any:
    return site.emit("stop_gradient", tensor(site, x))


# Reductions and shapes ------------------------------------------------------------------------------------------------


def register_reduction(name: str) -> None:
    def reduce(site: Site, x: Any, axes: Any = None, keepdims: Any = False) -> Any:
        x = tensor(site, x)
        return site.emit(name, x, axes=axes_of(axes, x.type.rank), keepdims=boolean(keepdims, "keepdims"))

    register(name, reduce)


register_reduction("sum")
register_reduction("reduce_max")


@builtin
def argmax(site: Site, x: Any, axis: Any = -1) -> Any:
    x = tensor(site, x)
    return site.emit("argmax", x, axis=axis_of(axis, x.type.rank))


@builtin
def reshape(site: Site, x: Any, shape: Any) -> Any:
    x = tensor(site, x)
    dims = list(shape) if isinstance(shape, list) else [shape]
    if dims.count(-1) == 1:
        total, rest = extent(x.type.shape), extent(shape_of([dim for dim in dims if dim != -1]))
        factor, left = divmod(total.factor, rest.factor) if rest.factor else (0, 1)
        if left or total.power - rest.power not in (0, 1):
            raise TypeRuleError("the elements do not divide evenly", f"a shape of {total} elements", show_items(dims))
        dims[dims.index(-1)] = Batch(factor) if total.power > rest.power else factor
    return site.emit("reshape", x, shape=shape_of(dims))


@builtin
def transpose(site: Site, x: Any, permutation: Any) -> Any:
    axes = permutation if isinstance(permutation, list) else [permutation]
    return site.emit("transpose", tensor(site, x), permutation=tuple(whole(axis, "an axis") for axis in axes))


@builtin
def broadcast(site: Site, x: Any, shape: Any) -> Any:
    return site.emit("broadcast", tensor(site, x), shape=shape_of(shape))


@builtin
def concat(site: Site, *tensors: Any, axis: Any = -1) -> Any:
    items = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list) else tensors
    values = [tensor(site, item) for item in items]
    if not values:
        raise TypeRuleError("nothing to join", "at least one tensor", "none")
    return site.emit("concat", *values, axis=axis_of(axis, values[0].type.rank))


@builtin
def split(site: Site, x: Any, parts: Any, axis: Any = -1) -> Any:
    x = tensor(site, x)
    at, count = axis_of(axis, x.type.rank), whole(parts, "the number of parts")
    size = x.type.shape[at]
    if not isinstance(size, int) or count < 1 or size % count:
        message, expected = f"axis {at} cannot be split into {count} equal parts", f"a multiple of {count}"
        raise TypeRuleError(message, expected, str(x.type))
    step = size // count
    return [slice_axis(site, x, at, i * step, (i + 1) * step) for i in range(count)]


def slice_axis(site: Site, x: Value, axis: int, start: int, stop: Dim) -> Value:
    rank, shape = x.type.rank, x.type.shape
    starts = tuple(start if i == axis else 0 for i in range(rank))
    stops = tuple(stop if i == axis else shape[i] for i in range(rank))
    return site.emit("slice", x, start=starts, stop=stops, step=(1,) * rank)


@builtin
def pad(site: Site, x: Any, widths: Any, value: Any = 0) -> Any:
    x, each = tensor(site, x), pairs(widths, "padding")
    low, high = (tuple(width[side] for width in each) for side in (0, 1))
    return site.emit("pad", x, low=low, high=high, value=float(number(value, "the padding value")))


@builtin
def flip(site: Site, x: Any, axis: Any) -> Any:
    x = tensor(site, x)
    return site.emit("flip", x, axes=axes_of(axis, x.type.rank))


@builtin
def iota(site: Site, size: Any) -> Any:
    return site.emit("iota", size=whole(size, "the size"))


@builtin
def gather(site: Site, table: Any, indices: Any) -> Any:
    table = tensor(site, table)
    if table.type.shape and isinstance(table.type.shape[0], Batch):
        expected = "a table with a known number of rows"
        raise TypeRuleError("the first axis of the table is the batch", expected, str(table.type))
    indices = tensor(site, indices, "i32")
    if indices.type.dtype == "i32" and table.type.rank and table.type.shape[0]:  # else the rule of gather refuses it
        indices = check_index(site, indices, table.type.shape[0])
    return site.emit("gather", table, indices)


@builtin
def check_index(site: Site, indices: Any, size: Any) -> Any:
    return site.emit("check_index", tensor(site, indices, "i32"), size=whole(size, "the size of the table"))


@builtin
def full(site: Site, shape: Any, value: Any) -> Any:
    return site.emit("broadcast", tensor(site, value), shape=shape_of(shape))


def filled_like(site: Site, x: Any, number: int) -> Value:
    x = tensor(site, x)
    return site.emit("broadcast", literal(number, x.type.dtype), shape=x.type.shape)


register("zeros_like", lambda site, x: filled_like(site, x, 0))
register("ones_like", lambda site, x: filled_like(site, x, 1))


# Convolution, pooling and recurrence ----------------------------------------------------------------------------------


@builtin
def conv2d(site: Site, x: Any, w: Any, stride: Any = 1, padding: Any = None, dilation: Any = 1, groups: Any = 1) -> Any:
    return site.emit(
        "conv2d",
        tensor(site, x),
        tensor(site, w),
        stride=pair(stride, "the stride"),
        padding=pairs(padding or NO_PADDING, "padding"),
        dilation=pair(dilation, "the dilation"),
        groups=whole(groups, "groups"),
    )


@builtin
def max_pool2d(site: Site, x: Any, window: Any = 2, stride: Any = None, padding: Any = None) -> Any:
    return site.emit(
        "max_pool2d",
        tensor(site, x),
        window=pair(window, "the window"),
        stride=pair(window if stride is None else stride, "the stride"),
        padding=pairs(padding or NO_PADDING, "padding"),
    )


@builtin
def patches(site: Site, x: Any, window: Any, stride: Any = 1, padding: Any = None, dilation: Any = 1) -> Any:
    return site.emit(
        "patches",
        tensor(site, x),
        window=pair(window, "the window"),
        stride=pair(stride, "the stride"),
        padding=pairs(padding or NO_PADDING, "padding"),
        dilation=pair(dilation, "the dilation"),
    )


@builtin
def scan(site: Site, cell: Any, x: Any, reverse: Any = False) -> Any:
    if not isinstance(cell, Closure) or cell.kind != "cell":
        raise TypeRuleError("the first argument is not a cell", "a cell", describe(cell))
    return scan_cell(site, cell, tensor(site, x), boolean(reverse, "reverse"))


# Random numbers -------------------------------------------------------------------------------------------------------


def draw(site: Site, shape: Any, distribution: str) -> Value:
    context, evaluator = site.context, site.evaluator
    if context.parent is not None:
        raise TypeRuleError("random numbers cannot be drawn inside a cell", "a tensor drawn before the scan")
    initial = context is evaluator.variables.init
    step = literal(0, "i32") if initial else context.counter("step")
    operands, shape = [context.counter("seed"), step], shape_of(shape)
    settings = {"distribution": distribution, "stream": evaluator.variables.next_stream()}
    axis = next((i for i, dim in enumerate(shape) if isinstance(dim, Batch)), None)
    if initial or evaluator.training or axis is None:
        return site.emit("random", *operands, shape=shape, **settings)
    # Outside of training, each example of the data has its own numbers: the examples are the first axis of the draw.
    first, factor = context.first_example(), shape[axis].factor
    first = first if factor == 1 else site.emit("mul", first, literal(factor, "i64"))
    drawn = site.emit("random", *operands, first, shape=(shape[axis], *shape[:axis], *shape[axis + 1 :]), **settings)
    order = (*range(1, axis + 1), 0, *range(axis + 1, len(shape)))
    return site.emit("transpose", drawn, permutation=order) if axis else drawn


def scaled(site: Site, x: Value, scale: Any, offset: Any) -> Value:
    x = x if scale == 1 else binary(site, "*", x, scale)
    return x if offset == 0 else binary(site, "+", x, offset)


@builtin
def random_uniform(site: Site, shape: Any, low: Any = 0, high: Any = 1) -> Any:
    return scaled(site, draw(site, shape, "uniform"), binary(site, "-", high, low), low)


@builtin
def random_normal(site: Site, shape: Any, mean: Any = 0, stddev: Any = 1) -> Any:
    return scaled(site, draw(site, shape, "normal"), stddev, mean)


@builtin
def random_truncated_normal(site: Site, shape: Any, mean: Any = 0, stddev: Any = 1) -> Any:
    return scaled(site, draw(site, shape, "truncated_normal"), stddev, mean)


@builtin
def orthogonalize(site: Site, x: Any) -> Any:
    return site.emit("orthogonalize", tensor(site, x))
