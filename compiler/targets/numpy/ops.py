"""How each op is written in NumPy: a table by op name. Every statement writes into an existing buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from string import ascii_lowercase

from compiler.ir.examples import indices_per_example
from compiler.ir.graph import Literal, Node
from compiler.ir.types import TYPICAL_BATCH, Batch, Dim, TensorType, at_batch
from compiler.ops.convolution import sizes_of
from compiler.planning.memory import Scratch
from compiler.targets.numpy.order import CHANNELS_FIRST_BATCH_LAST
from compiler.targets.shared.python_text import Emission, show_shape, show_value
from runtime.cpu.kernels.convolution import conv2d_grad_scratch, conv2d_scratch
from runtime.cpu.kernels.depthwise import MOST_IMAGES, bands_pay, bands_pay_for_filters, reach
from runtime.cpu.kernels.products import partial_sums
from runtime.cpu.kernels.sums import SHORT

Emitter = Callable[[Emission], list[str]]


def ufunc(name: str) -> Emitter:
    return lambda s: [f"np.{name}({', '.join(s.arguments)}, out={s.out})"]


def kernel(name: str, *attributes: str) -> Emitter:
    """A call of `runtime.cpu.kernels`: operands, then out, then attributes."""

    def emit(s: Emission) -> list[str]:
        settings = [f"{attribute}={show_value(s[attribute])}" for attribute in attributes]
        settings += [f"scratch={s.scratch}"] if s.scratch else []
        out = f"({s.out})" if len(s.node.results) > 1 else s.out
        return [f"kernels.{name}({', '.join([*s.arguments, f'out={out}', *settings])})"]

    return emit


def reduction(name: str) -> Emitter:
    def emit(s: Emission) -> list[str]:
        keep = ", keepdims=True" if s["keepdims"] else ""
        return [f"np.{name}({s.arguments[0]}, axis={show_value(s['axes'])}{keep}, out={s.out})"]

    return emit


def reshape_copy(s: Emission) -> list[str]:
    """If a view is not possible: copies the elements in reading order."""
    return [copy(f"{s.out}.reshape({show_shape(s.node.operands[0].type.shape)})", s.arguments[0])]


def assign(s: Emission) -> list[str]:
    return [copy(s.out, s.arguments[0])]


def copy(out: str, source: str) -> str:
    return f"np.copyto({out}, {source})"


def total(s: Emission) -> list[str]:
    """A sum; of floats, if it may be long, in parts."""
    x, axes = s.node.operands[0].type, s["axes"]
    if not x.is_float or not axes or fixed_size(x, axes) <= SHORT:
        return short_total(s)
    return kernel("total", "axes")(s)


def short_total(s: Emission) -> list[str]:
    """Over all axes but the last by einsum, which adds with vector instructions where np.sum does not."""
    x = s.node.operands[0].type
    if x.is_float and x.rank > 1 and s["axes"] == tuple(range(x.rank - 1)) and not s["keepdims"]:
        letters = ascii_lowercase[: x.rank]
        return [f'np.einsum("{letters}->{letters[-1]}", {s.arguments[0]}, out={s.out})']
    return reduction("sum")(s)


def fixed_size(type: TensorType, axes: Sequence[int]) -> float:
    """The number of elements along axes; infinite if the batch is among them."""
    sizes = [type.shape[axis] for axis in axes]
    return prod(inf if isinstance(size, Batch) else size for size in sizes)


def clip(s: Emission) -> list[str]:
    return clipped(s, s.arguments[0], show_value(s["low"]), show_value(s["high"]))


def maximum(s: Emission) -> list[str]:
    """A clip for floats and a number: np.maximum takes three times as long with a number among its operands."""
    x, number = tensor_and_number(s)
    return clipped(s, x, number, "np.inf") if number else ufunc("maximum")(s)


def minimum(s: Emission) -> list[str]:
    """Like `maximum`."""
    x, number = tensor_and_number(s)
    return clipped(s, x, "-np.inf", number) if number else ufunc("minimum")(s)


def clipped(s: Emission, x: str, low: str, high: str) -> list[str]:
    return [f"kernels.clip({x}, {low}, {high}, out={s.out})"]


def tensor_and_number(s: Emission) -> tuple[str, str]:
    """The two operands of a commutative op of floats if exactly one is a number; otherwise empty names."""
    one, other = s.arguments
    numbers = [isinstance(operand, Literal) for operand in s.node.operands]
    if numbers[0] == numbers[1] or not s.node.result.type.is_float:
        return "", ""
    return (other, one) if numbers[0] else (one, other)


def select(s: Emission) -> list[str]:
    condition, yes, no = s.arguments
    if keeps_or_clears(s.node):
        return [f"kernels.select_or_zero({condition}, {yes}, out={s.out})"]
    if 1 in s.overwritten:
        return [f"np.copyto({s.out}, {no}, where=np.logical_not({condition}))"]
    first = [] if 2 in s.overwritten else [copy(s.out, no)]
    return [*first, f"np.copyto({s.out}, {yes}, where={condition})"]


def pad(s: Emission) -> list[str]:
    source = s.node.operands[0].type.shape
    interior = s["interior"] or (0,) * len(source)
    spans = []
    for dim, low, high, between in zip(source, s["low"], s["high"], interior, strict=True):
        covered = dim + between * max(dim - 1, 0) if isinstance(dim, int) else None
        plain = covered is None or not (low or high or between)
        spans.append(":" if plain else f"{low}:{low + covered}" + (f":{between + 1}" if between else ""))
    return [f"{s.out}.fill({show_value(s['value'])})", f"{s.out}[{', '.join(spans) or '...'}] = {s.arguments[0]}"]


def concat(s: Emission) -> list[str]:
    return [f"np.concatenate(({', '.join(s.arguments)},), axis={s['axis']}, out={s.out})"]


def extent(s: Emission) -> list[str]:
    power = f" ** {s['power']}" if s["power"] > 1 else ""
    return [f"{s.out}[...] = {s['factor']} * B{power}"]


def check_index(s: Emission) -> list[str]:
    """The place in the model is text in the source: only as a constant."""
    place, layer = s.node.origin.place_and_layer if s.node.origin else ("", "")
    each = indices_per_example(s.node.operands[0])
    return [
        f"kernels.check_index({s.arguments[0]}, out={s.out}, size={s['size']},"
        f" place={place!r}, layer={layer!r}, each={each})"
    ]


def convolution(s: Emission) -> list[str]:
    """Depthwise convolutions have separate kernels, for narrow and for wide images."""
    name = s.node.op.name
    if s["groups"] > 1:
        name = f"depthwise_{name}" if in_bands(s.node) else f"depthwise_{name}_by_taps"
    return kernel(name, "stride", "dilation")(s)


STEPS = ("stride", "padding", "dilation")
POOLING = ("window", "stride", "padding")
UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "floor_div": "floor_divide",
    "mod": "remainder", "pow": "power", "neg": "negative",
    "abs": "absolute", "sign": "sign", "floor": "floor", "exp": "exp", "log": "log", "sqrt": "sqrt", "tanh": "tanh",
    "expm1": "expm1", "log1p": "log1p", "sin": "sin", "cos": "cos",
    "lt": "less", "le": "less_equal", "eq": "equal", "not": "logical_not", "and": "logical_and", "or": "logical_or",
}  # fmt: skip

EMITTERS: dict[str, Emitter] = {
    **{op: ufunc(name) for op, name in UFUNCS.items()},
    "cast": lambda s: [f"np.copyto({s.out}, {s.arguments[0]}, casting='unsafe')"],
    **dict.fromkeys(("copy", "stop_gradient", "broadcast"), assign),
    **dict.fromkeys(("transpose", "slice", "flip"), assign),  # of a literal: anything else is a view
    "reshape": reshape_copy,
    "select": select,
    "matmul": kernel("matmul"),
    **{op: kernel(op) for op in ("erf", "normal_cdf", "sigmoid")},
    "clip": clip,
    "max": maximum,
    "min": minimum,
    "sum": total,
    "sum_of_products": kernel("sum_of_products", "axes"),
    "reduce_max": reduction("max"),
    "argmax": kernel("argmax", "axis"),
    "concat": concat,
    "pad": pad,
    "iota": kernel("iota"),
    "extent": extent,
    "check_index": check_index,
    "gather": kernel("gather"),
    "scatter_add": kernel("scatter_add"),
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv2d_filter_grad"), convolution),
    "patches": kernel("patches", *STEPS),
    "fold": kernel("fold", *STEPS),
    **{op: kernel(op, *POOLING) for op in ("max_pool2d", "max_pool2d_with_index", "max_pool2d_route")},
    "random": kernel("random", "distribution", "stream"),
    "orthogonalize": kernel("orthogonalize"),
}


def keeps_or_clears(node: Node) -> bool:
    """Whether a `select` keeps floats or sets them to zero."""
    condition, yes, no = node.operands
    arrays = not isinstance(condition, Literal) and not isinstance(yes, Literal)
    return arrays and yes.type.is_float and isinstance(no, Literal) and repr(no.value) == "0.0"


def in_bands(node: Node) -> bool:
    """Whether the kernels of a depthwise convolution process images in bands."""
    (_, _, width, _), (kh, kw, _, _), (_, _, columns, _) = sizes_of(node)
    if node.op.name == "conv2d_filter_grad":
        return bands_pay_for_filters(columns, width, (kh, kw), node.attributes["dilation"])
    return bands_pay(width, (kh, kw), node.attributes["dilation"])


def convolution_scratch(node: Node) -> Scratch:
    name, dtype = node.op.name, node.result.type.dtype
    (_, _, width, channels), (kh, kw, depth, filters), (_, _, columns, _) = sizes_of(node)
    if node.attributes["groups"] == 1:
        rows = kh * kw * depth
        return space(dtype, conv2d_scratch(rows) if name == "conv2d" else conv2d_grad_scratch(rows, filters, channels))
    if not in_bands(node):
        y = node.result if name == "conv2d" else node.operands[0 if name == "conv2d_input_grad" else 1]
        return Scratch(y.type, CHANNELS_FIRST_BATCH_LAST)
    band = reach((kh, kw), node.attributes["dilation"]) * width
    matrix = filters // channels * columns * band
    sizes = {"conv2d": matrix, "conv2d_input_grad": matrix + band * MOST_IMAGES, "conv2d_filter_grad": 2 * matrix}
    return Scratch(TensorType(dtype, (sizes[name], channels)), (1, 0))


def matmul_scratch(node: Node) -> Scratch | None:
    """Space for partial sums, if the result is a small matrix and its sums are long."""
    rows, columns = node.result.type.shape[-2:]
    if node.result.type.rank > 2 or isinstance(rows, Batch) or isinstance(columns, Batch):
        return None
    (depth,) = at_batch(node.operands[0].type.shape[1:], TYPICAL_BATCH)
    shape = partial_sums(rows, columns, depth)
    return None if shape is None else space(node.result.type.dtype, *shape)


def argmax_scratch(node: Node) -> Scratch:
    """Space for a row of indices, and for the operand with the reduced axis moved."""
    axis, shape = node.attributes["axis"], node.operands[0].type.shape
    count = shape[axis]
    return space("i64", Batch(2 * count.factor) if isinstance(count, Batch) else 1 + count, *node.result.type.shape)


def space(dtype: str, *shape: Dim) -> Scratch:
    return Scratch(TensorType(dtype, shape))


# Scratch space of an op: in the arena, for this node alone.
SCRATCH: dict[str, Callable[[Node], Scratch | None]] = {
    **dict.fromkeys(("erf", "normal_cdf"), lambda node: space(node.result.type.dtype, 4, *node.result.type.shape)),
    "sigmoid": lambda node: space(node.result.type.dtype, *node.result.type.shape),
    "matmul": matmul_scratch,
    "argmax": argmax_scratch,
    "gather": lambda node: space("i64", *node.operands[1].type.shape),
    "scatter_add": lambda node: space("i64", *node.operands[0].type.shape),
    "max_pool2d_with_index": lambda node: Scratch(node.results[1].type, CHANNELS_FIRST_BATCH_LAST),
    "max_pool2d_route": lambda node: Scratch(node.operands[1].type, CHANNELS_FIRST_BATCH_LAST),
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv2d_filter_grad"), convolution_scratch),
}


def scratch_of(node: Node) -> Scratch | None:
    return SCRATCH[node.op.name](node) if node.op.name in SCRATCH else None
