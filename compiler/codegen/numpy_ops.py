"""How each op is written in NumPy: a table by op name. Every statement writes into a buffer that is there already."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.ir.graph import Literal, Node
from compiler.ir.types import NUMPY_NAMES, Batch, Dim
from compiler.memory import Scratch


@dataclass(frozen=True)
class Statement:
    """A node to write: the names of operands, result and scratch space, and which operands the result overwrites."""

    node: Node
    arguments: Sequence[str]
    out: str
    overwritten: frozenset[int] = frozenset()
    scratch: str = ""

    def __getitem__(self, attribute: str) -> Any:
        return self.node.attributes[attribute]


Emitter = Callable[[Statement], list[str]]
ViewEmitter = Callable[[Statement], str]


def show_dim(dim: Dim) -> str:
    return str(dim) if isinstance(dim, int) else "B" if dim.factor == 1 else f"{dim.factor} * B"


def show_shape(shape: Sequence[Dim]) -> str:
    return "(" + ", ".join(map(show_dim, shape)) + ("," if len(shape) == 1 else "") + ")"


def show_value(value: Any) -> str:
    """An attribute as Python: only numbers, strings and tuples of them reach this point."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(show_value, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": "np.inf", "-inf": "-np.inf"}.get(str(value), "np.nan")
    return show_dim(value) if isinstance(value, Batch) else repr(value)


def ufunc(name: str) -> Emitter:
    return lambda s: [f"np.{name}({', '.join(s.arguments)}, out={s.out})"]


def kernel(name: str, *attributes: str) -> Emitter:
    """A call of `runtime.kernels`: operands, then out, then attributes."""

    def emit(s: Statement) -> list[str]:
        settings = [f"{attribute}={show_value(s[attribute])}" for attribute in attributes]
        settings += [f"scratch={s.scratch}"] if s.scratch else []
        return [f"kernels.{name}({', '.join([*s.arguments, f'out={s.out}', *settings])})"]

    return emit


def reduction(name: str) -> Emitter:
    def emit(s: Statement) -> list[str]:
        keep = ", keepdims=True" if s["keepdims"] else ""
        return [f"np.{name}({s.arguments[0]}, axis={show_value(s['axes'])}{keep}, out={s.out})"]

    return emit


def reshape_copy(s: Statement) -> list[str]:
    """Where a view is not possible: the elements in reading order."""
    return [copy(f"{s.out}.reshape({show_shape(s.node.operands[0].type.shape)})", s.arguments[0])]


def assign(s: Statement) -> list[str]:
    return [
        f"np.copyto({s.out}, {s.arguments[0]}, casting='unsafe')"
        if s.node.op.name == "cast"
        else copy(s.out, s.arguments[0])
    ]


def copy(out: str, source: str) -> str:
    return f"np.copyto({out}, {source})"


def total(s: Statement) -> list[str]:
    """A sum; over all axes but the last it goes by a product."""
    x = s.node.operands[0].type
    if x.dtype == "f32" and x.rank > 1 and s["axes"] == tuple(range(x.rank - 1)) and not s["keepdims"]:
        return [f"kernels.sum_rows({s.arguments[0]}, out={s.out})"]
    return reduction("sum")(s)


def select(s: Statement) -> list[str]:
    condition, yes, no = s.arguments
    if s.scratch:
        return [f"kernels.select_or_zero({condition}, {yes}, out={s.out}, scratch={s.scratch})"]
    if 1 in s.overwritten:
        return [f"np.copyto({s.out}, {no}, where=np.logical_not({condition}))"]
    first = [] if 2 in s.overwritten else [copy(s.out, no)]
    return [*first, f"np.copyto({s.out}, {yes}, where={condition})"]


def pad(s: Statement) -> list[str]:
    source = s.node.operands[0].type.shape
    interior = s["interior"] or (0,) * len(source)
    spans = []
    for dim, low, high, between in zip(source, s["low"], s["high"], interior, strict=True):
        covered = dim + between * max(dim - 1, 0) if isinstance(dim, int) else None
        plain = covered is None or not (low or high or between)
        spans.append(":" if plain else f"{low}:{low + covered}" + (f":{between + 1}" if between else ""))
    return [f"{s.out}.fill({show_value(s['value'])})", f"{s.out}[{', '.join(spans) or '...'}] = {s.arguments[0]}"]


def concat(s: Statement) -> list[str]:
    return [f"np.concatenate(({', '.join(s.arguments)},), axis={s['axis']}, out={s.out})"]


def iota(s: Statement) -> list[str]:
    return [f"{s.out}[...] = np.arange({s['size']})"]


def extent(s: Statement) -> list[str]:
    power = f" ** {s['power']}" if s["power"] > 1 else ""
    return [f"{s.out}[...] = {s['factor']} * B{power}"]


def argmax(s: Statement) -> list[str]:
    return [copy(s.out, f"np.argmax({s.arguments[0]}, axis={s['axis']})")]


def gather(s: Statement) -> list[str]:
    return [f"np.take({s.arguments[0]}, {s.arguments[1]}, axis=0, out={s.out}, mode='clip')"]


STEPS = ("stride", "padding", "dilation")
UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "pow": "power", "max": "maximum",
    "min": "minimum", "neg": "negative", "abs": "absolute", "sign": "sign", "floor": "floor", "exp": "exp",
    "log": "log", "sqrt": "sqrt", "tanh": "tanh", "sin": "sin", "cos": "cos",
    "lt": "less", "le": "less_equal", "eq": "equal", "not": "logical_not", "and": "logical_and", "or": "logical_or",
}  # fmt: skip

EMITTERS: dict[str, Emitter] = {
    **{op: ufunc(name) for op, name in UFUNCS.items()},
    **dict.fromkeys(("copy", "cast", "stop_gradient", "broadcast"), assign),
    "reshape": reshape_copy,
    "select": select,
    "matmul": kernel("matmul"),
    "erf": kernel("erf"),
    "clip": kernel("clip", "low", "high"),
    "sum": total,
    "sum_of_products": kernel("sum_of_products", "axes"),
    "reduce_max": reduction("max"),
    "argmax": argmax,
    "concat": concat,
    "pad": pad,
    "iota": iota,
    "extent": extent,
    "gather": gather,
    "scatter_add": kernel("scatter_add"),
    "conv2d": kernel("depthwise_conv2d", *STEPS),
    "conv2d_input_grad": kernel("depthwise_conv2d_input_grad", *STEPS),
    "conv2d_filter_grad": kernel("depthwise_conv2d_filter_grad", *STEPS),
    "patches": kernel("patches", *STEPS),
    "fold": kernel("fold", *STEPS),
    "max_pool2d": kernel("max_pool2d", "window", "stride", "padding"),
    "max_pool2d_grad": kernel("max_pool2d_grad", "window", "stride", "padding"),
    "random": kernel("random", "distribution", "stream"),
    "orthogonalize": kernel("orthogonalize"),
}


def select_scratch(node: Node) -> Scratch | None:
    """A mask, where floats are kept or set to zero."""
    condition, yes, no = node.operands
    zero = isinstance(no, Literal) and repr(no.value) == "0.0"
    arrays = not isinstance(condition, Literal) and not isinstance(yes, Literal)
    return Scratch(node.result, 0) if zero and arrays and node.result.type.dtype == "f32" else None


def pooling_scratch(node: Node) -> Scratch:
    """The pixels of each tap, the largest, and two masks."""
    rows, columns = node.attributes["window"]
    return Scratch(node.operands[1], rows * columns + 3)


# What the code of an op needs besides its result: space in the arena, there for that node alone.
SCRATCH: dict[str, Callable[[Node], Scratch | None]] = {
    "select": select_scratch,
    "max_pool2d_grad": pooling_scratch,
    "conv2d": lambda node: Scratch(node.result, 0),
    "conv2d_input_grad": lambda node: Scratch(node.operands[0], 0),
    "conv2d_filter_grad": lambda node: Scratch(node.operands[1], 0),
}


def scratch_of(node: Node) -> Scratch | None:
    return SCRATCH[node.op.name](node) if node.op.name in SCRATCH else None


def slices(s: Statement) -> str:
    parts = []
    shape = s.node.operands[0].type.shape
    for dim, start, stop, step in zip(shape, s["start"], s["stop"], s["step"], strict=True):
        whole = start == 0 and stop == dim
        parts.append((":" if whole else f"{start}:{stop}") + (f":{step}" if step != 1 else ""))
    return f"{s.arguments[0]}[{', '.join(parts) or '...'}]"


def flipped(s: Statement) -> str:
    rank = s.node.result.type.rank
    return f"{s.arguments[0]}[{', '.join('::-1' if axis in s['axes'] else ':' for axis in range(rank)) or '...'}]"


def reshaped(s: Statement) -> str:
    return f"{s.arguments[0]}.reshape({show_shape(s['shape'])})"


VIEWS: dict[str, ViewEmitter] = {
    "reshape": reshaped,
    "transpose": lambda s: f"{s.arguments[0]}.transpose({show_value(s['permutation'])})",
    "broadcast": lambda s: f"np.broadcast_to({s.arguments[0]}, {show_shape(s['shape'])})",
    "slice": slices,
    "flip": flipped,
    "stop_gradient": lambda s: s.arguments[0],
}
NUMPY_TYPES = {dtype: f"np.{name}" for dtype, name in NUMPY_NAMES.items()}
