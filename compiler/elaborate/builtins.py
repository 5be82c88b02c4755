"""The functions that the compiler implements: each a few lines from compile-time values and tensors to nodes.

Everything else of the library is written in the language (`compiler/std`). A builtin's Python signature is its
signature in the language; it raises TypeRuleError with what it expected and found.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from compiler.elaborate.context import Site
from compiler.elaborate.signatures import Given, as_shape
from compiler.elaborate.values import Builtin, Call, Closure, describe, is_function, is_number, is_tensor
from compiler.ir.builder import literal
from compiler.ir.graph import Value
from compiler.ir.types import DTYPES, Batch, Dim, Extent, TensorType, TypeRuleError, extent

if TYPE_CHECKING:
    from compiler.elaborate.evaluator import Evaluator, Frame

LONGEST_LIST = 100_000
BUILTINS: dict[str, Builtin] = {}


def builtin(function: Callable[..., Any]) -> Callable[..., Any]:
    """Registers under the Python name without a trailing underscore."""
    name = function.__name__.rstrip("_")
    BUILTINS[name] = Builtin(name, function)
    return function


@cache
def signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def call_builtin(
    evaluator: Evaluator, called: Builtin, given: Sequence[Given], span: Any, frame: Frame, piped: bool
) -> Any:
    """Binds the arguments by the Python signature and calls; every refusal is reported at the call."""
    site = Site(evaluator, span, frame)
    keywords = {argument.name: argument.value for argument in given if argument.name}
    try:
        bound = signature(called.function).bind(site, *(a.value for a in given if not a.name), **keywords)
    except TypeError as mismatch:
        names = list(signature(called.function).parameters)[1:]
        return evaluator.fail(
            span,
            frame,
            f"{called.name} cannot be called so: {mismatch}",
            f"{called.name}({', '.join(names)})",
            f"{len(given)} arguments",
        )
    try:
        result = called.function(*bound.args, **bound.kwargs)
    except TypeRuleError as refusal:
        tensor = next((a.value for a in given if is_tensor(a.value) and a.value in evaluator.history), None)
        message = refusal.message if called.name == "error" else f"{called.name}: {refusal.message}"
        return evaluator.fail(span, frame, message, refusal.expected, refusal.found, tensor)
    evaluator.remember(called.name, result, given, span, frame)
    if piped and frame.call is not None and not frame.namespace.is_library:
        frame.call.children.append(Call(called.name, frame.path, "fn", True, True, span, result))
    return result


# What arguments may be ------------------------------------------------------------------------------------------------


def tensor(site: Site, value: Any) -> Value:
    if isinstance(value, Batch):
        return site.scalar(value)
    if is_number(value):
        return literal(value, "f32")
    if not is_tensor(value):
        raise TypeRuleError("not a tensor", "a tensor", describe(value))
    return value


def whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeRuleError(f"{what} is not a whole number", "a whole number", describe(value))
    return value


def axis_of(value: Any, rank: int) -> int:
    axis = whole(value, "the axis")
    if not -rank <= axis < rank:
        raise TypeRuleError("the axis is out of range", f"{-rank} to {rank - 1}", str(axis))
    return axis % rank


def axes_of(value: Any, rank: int) -> tuple[int, ...]:
    if value is None:
        return tuple(range(rank))
    return tuple(sorted({axis_of(axis, rank) for axis in (value if isinstance(value, list) else [value])}))


def shape_of(value: Any) -> tuple[Dim, ...]:
    shape = as_shape(value)
    if shape is None:
        raise TypeRuleError("not a shape", "a list of non-negative whole numbers", describe(value))
    return shape


def pair(value: Any, what: str) -> tuple[int, int]:
    items = value if isinstance(value, list) else [value, value]
    if len(items) != 2:
        raise TypeRuleError(f"{what} is not a pair", "a number or a list of two", describe(value))
    return whole(items[0], what), whole(items[1], what)


def pairs(value: Any, what: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise TypeRuleError(f"{what} is not a list of pairs", "[[before, after], …]", describe(value))
    return tuple(pair(item, what) for item in value)


def dtype_of(value: Any) -> str:
    if value not in DTYPES:
        raise TypeRuleError("unknown dtype", " ".join(DTYPES), describe(value))
    return value


# Elementwise ----------------------------------------------------------------------------------------------------------


def register_unary(name: str, on_number: Callable[[float], float]) -> None:
    def apply(site: Site, x: Any) -> Any:
        if is_number(x):
            try:
                return on_number(x)
            except (ValueError, OverflowError):
                raise TypeRuleError("not defined for this number", found=str(x)) from None
        return site.emit(name, tensor(site, x))

    BUILTINS[name] = Builtin(name, apply)


for _name in ("exp", "log", "sqrt", "tanh", "erf", "sin", "cos", "floor"):
    register_unary(_name, getattr(math, _name))
register_unary("abs", abs)
register_unary("sign", lambda x: (x > 0) - (x < 0))


def register_extremum(name: str, on_numbers: Callable[..., Any]) -> None:
    def apply(site: Site, a: Any, b: Any) -> Any:
        if is_number(a) and is_number(b):
            return on_numbers(a, b)
        for side in (a, b):
            if not is_number(side):
                tensor(site, side)
        return site.emit(name, a, b)

    BUILTINS[name] = Builtin(name, apply)


register_extremum("max", max)
register_extremum("min", min)


@builtin
def where(site: Site, condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    dtype = next((side.type.dtype for side in (a, b) if is_tensor(side)), "f32")
    sides = [literal(side, dtype) if is_number(side) else tensor(site, side) for side in (a, b)]
    return site.emit("select", tensor(site, condition), *sides)


@builtin
def cast(site: Site, x: Any, dtype: Any) -> Any:
    dtype = dtype_of(dtype)
    x = tensor(site, x)
    return x if x.type.dtype == dtype else site.emit("cast", x, dtype=dtype)


@builtin
def stop_gradient(site: Site, x: Any) -> Any:
    return site.emit("stop_gradient", tensor(site, x))


# Reductions and shapes ------------------------------------------------------------------------------------------------


@builtin
def sum_(site: Site, x: Any, axes: Any = None, keepdims: Any = False) -> Any:
    x = tensor(site, x)
    return site.emit("sum", x, axes=axes_of(axes, x.type.rank), keepdims=bool(keepdims))


@builtin
def reduce_max(site: Site, x: Any, axes: Any = None, keepdims: Any = False) -> Any:
    x = tensor(site, x)
    return site.emit("reduce_max", x, axes=axes_of(axes, x.type.rank), keepdims=bool(keepdims))


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
            raise TypeRuleError("the elements do not divide", f"a shape of {total} elements", describe_dims(dims))
        dims[dims.index(-1)] = Batch(factor) if total.power > rest.power else factor
    return site.emit("reshape", x, shape=shape_of(dims))


def describe_dims(dims: list[Any]) -> str:
    return "[" + ", ".join(str(dim) if isinstance(dim, int | Batch) else describe(dim) for dim in dims) + "]"


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
        raise TypeRuleError(f"axis {at} does not split into {count} equal parts", f"a multiple of {count}", str(x.type))
    step = size // count
    return [slice_axis(site, x, at, i * step, (i + 1) * step) for i in range(count)]


def slice_axis(site: Site, x: Value, axis: int, start: int, stop: Dim, step: int = 1) -> Value:
    rank, shape = x.type.rank, x.type.shape
    starts = tuple(start if i == axis else 0 for i in range(rank))
    stops = tuple(stop if i == axis else shape[i] for i in range(rank))
    return site.emit("slice", x, start=starts, stop=stops, step=tuple(step if i == axis else 1 for i in range(rank)))


@builtin
def pad(site: Site, x: Any, widths: Any, value: Any = 0) -> Any:
    x, each = tensor(site, x), pairs(widths, "padding")
    if not is_number(value):
        raise TypeRuleError("the padding value is not a number", "a number", describe(value))
    low, high = (tuple(width[side] for width in each) for side in (0, 1))
    return site.emit("pad", x, low=low, high=high, value=float(value))


@builtin
def flip(site: Site, x: Any, axis: Any) -> Any:
    x = tensor(site, x)
    return site.emit("flip", x, axes=axes_of(axis, x.type.rank))


@builtin
def iota(site: Site, size: Any) -> Any:
    return site.emit("iota", size=whole(size, "the size"))


@builtin
def gather(site: Site, table: Any, indices: Any) -> Any:
    return site.emit("gather", tensor(site, table), tensor(site, indices))


@builtin
def full(site: Site, shape: Any, value: Any) -> Any:
    return site.emit("broadcast", tensor(site, value), shape=shape_of(shape))


@builtin
def zeros_like(site: Site, x: Any) -> Any:
    x = tensor(site, x)
    return site.emit("broadcast", literal(0, x.type.dtype), shape=x.type.shape)


@builtin
def ones_like(site: Site, x: Any) -> Any:
    x = tensor(site, x)
    return site.emit("broadcast", literal(1, x.type.dtype), shape=x.type.shape)


# Convolution and pooling ----------------------------------------------------------------------------------------------


@builtin
def conv2d(site: Site, x: Any, w: Any, stride: Any = 1, padding: Any = None, dilation: Any = 1, groups: Any = 1) -> Any:
    return site.emit(
        "conv2d",
        tensor(site, x),
        tensor(site, w),
        stride=pair(stride, "the stride"),
        padding=pairs(padding or [[0, 0], [0, 0]], "padding"),
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
        padding=pairs(padding or [[0, 0], [0, 0]], "padding"),
    )


@builtin
def patches(site: Site, x: Any, window: Any, stride: Any = 1, padding: Any = None, dilation: Any = 1) -> Any:
    return site.emit(
        "patches",
        tensor(site, x),
        window=pair(window, "the window"),
        stride=pair(stride, "the stride"),
        padding=pairs(padding or [[0, 0], [0, 0]], "padding"),
        dilation=pair(dilation, "the dilation"),
    )


# Random numbers -------------------------------------------------------------------------------------------------------


def draw(site: Site, shape: Any, distribution: str) -> Value:
    context, evaluator = site.context, site.evaluator
    if context.parent is not None:
        raise TypeRuleError("random numbers cannot be drawn inside a cell", "a tensor drawn before the scan")
    step = literal(0, "i32") if context is evaluator.variables.init else context.counter("step")
    return site.emit(
        "random",
        context.counter("seed"),
        step,
        shape=shape_of(shape),
        distribution=distribution,
        stream=evaluator.variables.next_stream(),
    )


def scaled(site: Site, x: Value, scale: Any, offset: Any) -> Value:
    x = x if scale == 1 else site.emit("mul", x, scale)
    return x if offset == 0 else site.emit("add", x, offset)


@builtin
def random_uniform(site: Site, shape: Any, low: Any = 0, high: Any = 1) -> Any:
    return scaled(site, draw(site, shape, "uniform"), high - low, low)


@builtin
def random_normal(site: Site, shape: Any, mean: Any = 0, stddev: Any = 1) -> Any:
    return scaled(site, draw(site, shape, "normal"), stddev, mean)


@builtin
def random_truncated_normal(site: Site, shape: Any, mean: Any = 0, stddev: Any = 1) -> Any:
    return scaled(site, draw(site, shape, "truncated_normal"), stddev, mean)


@builtin
def orthogonalize(site: Site, x: Any) -> Any:
    return site.emit("orthogonalize", tensor(site, x))


# Compile time ---------------------------------------------------------------------------------------------------------


@builtin
def shape(site: Site, x: Any) -> Any:
    return list(tensor(site, x).type.shape)


@builtin
def rank(site: Site, x: Any) -> Any:
    return tensor(site, x).type.rank


@builtin
def dtype(site: Site, x: Any) -> Any:
    return tensor(site, x).type.dtype


@builtin
def size(site: Site, x: Any, axes: Any = None) -> Any:
    type = tensor(site, x).type
    return count(site, [type.shape[axis] for axis in axes_of(axes, type.rank)])


@builtin
def prod(site: Site, items: Any) -> Any:
    if isinstance(items, list) and all(map(is_number, items)):
        return math.prod(items)
    return count(site, shape_of(items))


def count(site: Site, dims: Sequence[Dim]) -> int | Value:
    """The number of elements: a number, or a run-time scalar f32[] when the batch is among the dimensions."""
    total: Extent = extent(dims)
    return site.emit("extent", factor=total.factor, power=total.power) if total.power else total.factor


@builtin
def len_(site: Site, items: Any) -> Any:
    if not isinstance(items, list | str):
        raise TypeRuleError("this has no length", "a list", describe(items))
    return len(items)


@builtin
def range_(site: Site, start: Any, stop: Any = None) -> Any:
    first, last = (0, start) if stop is None else (start, stop)
    items = range(whole(first, "the start"), whole(last, "the end"))
    if len(items) > LONGEST_LIST:
        raise TypeRuleError("the range is too long", f"at most {LONGEST_LIST} items", str(len(items)))
    return list(items)


@builtin
def append(site: Site, items: Any, item: Any) -> Any:
    if not isinstance(items, list) or len(items) >= LONGEST_LIST:
        raise TypeRuleError(
            "nothing can be appended to this", f"a list of at most {LONGEST_LIST} items", describe(items)
        )
    return [*items, item]


@builtin
def int_(site: Site, value: Any) -> Any:
    if not is_number(value):
        raise TypeRuleError("not a number", "a number", describe(value))
    return int(value)


@builtin
def float_(site: Site, value: Any) -> Any:
    if not is_number(value):
        raise TypeRuleError("not a number", "a number", describe(value))
    return float(value)


@builtin
def is_list(site: Site, value: Any) -> Any:
    return isinstance(value, list)


@builtin
def is_none(site: Site, value: Any) -> Any:
    return value is None


def register_test(name: str, test: Callable[[Any], bool]) -> None:
    BUILTINS[name] = Builtin(name, lambda site, value: test(value))


register_test("is_number", is_number)
register_test("is_function", is_function)


@builtin
def error(site: Site, message: Any) -> Any:
    raise TypeRuleError(str(message))


# Indexing -------------------------------------------------------------------------------------------------------------


def index_tensor(site: Site, target: Any, items: list[Any]) -> Any:
    """`x[1:3, :, -1]` of a tensor, or `list[i]`."""
    if isinstance(target, list):
        return index_list(target, items)
    if not is_tensor(target):
        raise TypeRuleError("this has no elements", "a tensor or a list", describe(target))
    if len(items) > target.type.rank:
        raise TypeRuleError("too many indices", f"at most {target.type.rank}", str(len(items)))
    starts, stops, steps, kept = [], [], [], []
    for axis, dim in enumerate(target.type.shape):
        item = items[axis] if axis < len(items) else slice(None)
        start, stop, step = bounds(item, dim)
        starts.append(start), stops.append(stop), steps.append(step)
        if isinstance(item, slice):
            kept.append(dim if isinstance(dim, Batch) else max(0, -(-(stop - start) // step)))
    whole_type = TensorType(target.type.dtype, tuple(kept))
    if tuple(stops) != target.type.shape or any(starts) or any(step != 1 for step in steps):
        target = site.emit("slice", target, start=tuple(starts), stop=tuple(stops), step=tuple(steps))
    return target if target.type == whole_type else site.emit("reshape", target, shape=whole_type.shape)


def bounds(item: Any, dim: Dim) -> tuple[int, Any, int]:
    """Start, stop and step of one index along a dimension."""
    if isinstance(item, slice) and item == slice(None):
        return 0, dim, 1
    if isinstance(dim, Batch):
        raise TypeRuleError("the batch axis can only be taken whole", ":", "an index")
    if isinstance(item, slice):
        start, stop, step = (
            None if bound is None else whole(bound, "a bound") for bound in (item.start, item.stop, item.step)
        )
        if step is not None and step < 1:
            raise TypeRuleError("the step is not positive", "1 or more (flip(x, axis) turns an axis round)", str(step))
        first, last, stride = slice(start, stop, step).indices(dim)
        return first, max(first, last), stride
    index = whole(item, "the index")
    if not -dim <= index < dim:
        raise TypeRuleError("the index is out of range", f"{-dim} to {dim - 1}", str(index))
    return index % dim, index % dim + 1, 1


def index_list(items: list[Any], indices: list[Any]) -> Any:
    if len(indices) != 1:
        raise TypeRuleError("a list takes one index", "1", str(len(indices)))
    (index,) = indices
    if isinstance(index, slice):
        return items[index]
    if not -len(items) <= whole(index, "the index") < len(items):
        raise TypeRuleError("the index is out of range", f"a list of {len(items)}", str(index))
    return items[index]


@builtin
def scan(site: Site, cell: Any, x: Any, reverse: Any = False) -> Any:
    from compiler.elaborate.scans import scan_cell

    if not isinstance(cell, Closure) or cell.kind != "cell":
        raise TypeRuleError("the first argument is not a cell", "a cell", describe(cell))
    return scan_cell(site, cell, tensor(site, x), bool(reverse))
