"""Random applications of every op of the table: operands that it may accept, and attributes.

A proposal may be refused by the op's own rule; then another one is drawn. So there are no shape rules here.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

from compiler.ir.builder import literal
from compiler.ir.graph import Graph, Value
from compiler.ir.op import Op
from compiler.ir.types import DTYPES, FLOATS, Batch, Dim, Shape, TensorType, TypeRuleError, extent
from compiler.ops import OPS
from tests.fuzz.drafts import INTEGERS, NUMBERS, SIGNED, Draft, Proposal
from tests.fuzz.image_proposals import (
    conv2d,
    conv2d_filter_grad,
    conv2d_input_grad,
    fold,
    max_pool2d,
    patches,
)

EXPONENTS = (0.0, 1.0, 2.0, 3.0, -1.0, 0.5)


# Elementwise ----------------------------------------------------------------------------------------------------------


def unary(name: str, limit: float = inf) -> Proposal:
    return lambda draft: draft.emit(name, [draft.small(draft.floats(), limit)], {})


def of_positive(name: str) -> Proposal:
    return lambda draft: draft.emit(name, [draft.positive(draft.floats())], {})


def binary(name: str, dtypes: tuple[str, ...] = (*FLOATS, *FLOATS, *FLOATS, *INTEGERS)) -> Proposal:
    def propose(draft: Draft) -> Any:
        x = draft.of(dtypes)
        x = draft.small(x) if x.type.is_float else x
        pair = [x, draft.partner(x)]
        if draft.random.random() < 0.4:
            pair.reverse()
        return draft.emit(name, pair, {})

    return propose


def divide(name: str) -> Proposal:
    def propose(draft: Draft) -> Any:
        x = draft.small(draft.floats())
        if draft.random.random() < 0.3:
            return draft.emit(name, [x, literal(draft.random.choice((1.0, -1.0, 2.0, 3.0, 0.5)), x.type.dtype)], {})
        y = draft.positive(draft.partner(x, numbers=False))
        return draft.emit(name, [draft.partner(y) if draft.random.random() < 0.2 else x, y], {})

    return propose


def quotient(name: str) -> Proposal:
    """Of floats that are not 0, and of whole numbers, which may be."""
    of_floats, of_integers = divide(name), binary(name, INTEGERS)
    return lambda draft: (of_floats if draft.random.random() < 0.6 else of_integers)(draft)


def power(draft: Draft) -> Any:
    x = draft.small(draft.floats(), 4.0)
    exponent = draft.random.choice(EXPONENTS)
    if draft.random.random() < 0.4:
        return draft.emit("pow", [draft.positive(x), draft.small(draft.partner(x), 3.0)], {})
    base = x if exponent in (0.0, 1.0, 2.0, 3.0) else draft.positive(x)
    return draft.emit("pow", [base, literal(exponent, x.type.dtype)], {})


def clip(draft: Draft) -> Any:
    low, high = sorted(draft.random.choices((-inf, -1.3, -0.4, 0.0, 0.6, 1.7, inf), k=2))
    if low == high and low in (-inf, inf):
        low, high = -1.3, 1.7
    return draft.emit("clip", [draft.floats()], {"low": low, "high": high})


def cast(draft: Draft) -> Any:
    x, dtype = draft.of(DTYPES), draft.random.choice(DTYPES)
    if x.type.is_float and dtype in INTEGERS:
        x = draft.positive(x) if dtype == "u8" else draft.small(x)
    return draft.emit("cast", [x], {"dtype": dtype})


def condition(draft: Draft) -> Value:
    found = draft.some(lambda type: type.dtype == "bool")
    return found if found is not None and draft.random.random() < 0.6 else compare(draft)


def compare(draft: Draft) -> Value:
    x = draft.of(NUMBERS)
    return draft.emit(draft.random.choice(("lt", "le", "eq")), [x, draft.partner(x)], {})


def select(draft: Draft) -> Any:
    chosen = condition(draft)
    x = draft.input(TensorType(draft.float_dtype(), chosen.type.shape))
    x = x if draft.random.random() < 0.3 else draft.of(NUMBERS)
    pair = [x, draft.partner(x)]
    if draft.random.random() < 0.5:
        pair.reverse()
    return draft.emit("select", [chosen, *pair], {})


def logic(name: str) -> Proposal:
    def propose(draft: Draft) -> Any:
        one = condition(draft)
        if name == "not":
            return draft.emit("not", [one], {})
        other = draft.partner(one, numbers=False)
        return draft.emit(name, [one, other], {})

    return propose


# Reductions and shapes ------------------------------------------------------------------------------------------------


def some_axes(random: Random, rank: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(rank) if random.random() < 0.5)


def reduction(name: str, dtypes: tuple[str, ...]) -> Proposal:
    def propose(draft: Draft) -> Any:
        x = draft.of((*FLOATS, *FLOATS, *dtypes))
        attributes = {"axes": some_axes(draft.random, x.type.rank), "keepdims": draft.random.random() < 0.4}
        return draft.emit(name, [x], attributes)

    return propose


def argmax(draft: Draft) -> Any:
    x = draft.of(NUMBERS, least=1)
    return draft.emit("argmax", [x], {"axis": draft.random.randrange(x.type.rank)})


def sum_of_products(draft: Draft) -> Any:
    x = draft.small(draft.of(SIGNED))
    return draft.emit("sum_of_products", [x, draft.typed(x.type)], {"axes": some_axes(draft.random, x.type.rank)})


def other_shape(random: Random, shape: Shape) -> Shape:
    """Another shape with the same number of elements: axes joined or split, and axes of size 1 inserted."""
    size = extent(shape)
    dims: list[Dim] = [Batch() for _ in range(size.power)]
    rest = size.factor
    if rest == 0:
        return random.choice(((0,), (0, 2), (3, 0), (1, 0, 1)))
    while rest > 1 and len(dims) < 5:
        part = random.choice([d for d in range(2, rest + 1) if rest % d == 0])
        dims.append(part)
        rest //= part
    if rest > 1:
        dims[-1] = dims[-1].factor * rest if isinstance(dims[-1], Batch) else dims[-1] * rest
    if random.random() < 0.3:
        dims.append(1)
    random.shuffle(dims)
    return tuple(dims) if random.random() < 0.5 else tuple(sorted(dims, key=lambda dim: not isinstance(dim, Batch)))


def reshape(draft: Draft) -> Any:
    x = draft.of(DTYPES)
    return draft.emit("reshape", [x], {"shape": other_shape(draft.random, x.type.shape)})


def transpose(draft: Draft) -> Any:
    x = draft.of(DTYPES, least=draft.random.choice((0, 2)))
    axes = list(range(x.type.rank))
    draft.random.shuffle(axes)
    return draft.emit("transpose", [x], {"permutation": tuple(axes)})


def broadcast(draft: Draft) -> Any:
    x = draft.of(DTYPES)
    dims = [draft.random.choice((1, 2, 3, Batch())) if dim == 1 else dim for dim in x.type.shape]
    lead = [draft.dim() for _ in range(draft.random.choice((0, 0, 1, 2)))]
    return draft.emit("broadcast", [x], {"shape": (*lead, *dims)})


def concat(draft: Draft) -> Any:
    x = draft.of(DTYPES, least=1)
    axis = draft.random.choice([axis for axis, dim in enumerate(x.type.shape) if not isinstance(dim, Batch)] or [0])
    parts = [x]
    for _ in range(draft.random.choice((0, 1, 1, 1, 2, 3))):
        dim = draft.dim() if draft.random.random() < 0.5 else x.type.shape[axis]
        dims = tuple(dim if i == axis else d for i, d in enumerate(x.type.shape))
        parts.append(x if draft.random.random() < 0.15 else draft.typed(x.type.with_shape(dims)))
    draft.random.shuffle(parts)
    return draft.emit("concat", parts, {"axis": axis})


def slices(draft: Draft) -> Any:
    x, random = draft.of(DTYPES, least=draft.random.choice((0, 1, 2))), draft.random
    ranges: list[tuple[int, Dim, int]] = []
    for dim in x.type.shape:
        if isinstance(dim, Batch) or random.random() < 0.3:
            ranges.append((0, dim, 1))
        else:
            start, stop = sorted((random.randint(0, dim), random.randint(0, dim)))
            ranges.append((start, stop if random.random() < 0.4 else dim, random.choice((1, 1, 2, 3))))
    start, stop, step = zip(*ranges, strict=True) if ranges else ((), (), ())
    return draft.emit("slice", [x], {"start": start, "stop": stop, "step": step})


def pad(draft: Draft) -> Any:
    x, random = draft.of(NUMBERS), draft.random

    def sides(most: int) -> tuple[int, ...]:
        return tuple(0 if isinstance(dim, Batch) else random.randint(0, most) for dim in x.type.shape)

    value = random.choice((0.0, 0.0, 1.0, -1.5)) if x.type.is_float else random.choice((0, 7))
    interior = sides(2) if random.random() < 0.4 else ()
    return draft.emit("pad", [x], {"low": sides(2), "high": sides(2), "interior": interior, "value": value})


def flip(draft: Draft) -> Any:
    x = draft.of(DTYPES)
    return draft.emit("flip", [x], {"axes": some_axes(draft.random, x.type.rank)})


# Products ----------------------------------------------------------------------------------------------------------


def matmul(draft: Draft) -> Any:
    a, random = draft.small(draft.floats(least=2)), draft.random
    if random.random() < 0.2:  # the product of a value with its own transpose
        axes = range(a.type.rank)
        turned = draft.emit("transpose", [a], {"permutation": (*axes[:-2], axes[-1], axes[-2])})
        return draft.emit("matmul", [a, turned] if random.random() < 0.5 else [turned, a], {})
    lead = tuple(dim if random.random() < 0.7 else 1 for dim in a.type.shape[:-2])
    inner, outer = a.type.shape[-1], random.choice((draft.dim(), draft.dim(), Batch()))
    b = draft.typed(a.type.with_shape((*lead[random.randrange(len(lead) + 1) :], inner, outer)))
    if random.random() < 0.3:
        axes = range(b.type.rank)
        swapped = (*axes[:-2], axes[-1], axes[-2])
        b = draft.typed(b.type.with_shape(b.type.shape[axis] for axis in swapped))
        b = draft.emit("transpose", [b], {"permutation": swapped})
    return draft.emit("matmul", [a, b], {})


# Indices, random numbers, scans ---------------------------------------------------------------------------------------


def indices(draft: Draft, rows: int | None) -> Value:
    """Integers below `rows`; the range of an input follows from the ops that read it (`index_ranges`)."""
    random = draft.random
    if rows is not None and random.random() < 0.2:
        found = draft.small(draft.floats())
        clipped = draft.emit("clip", [found], {"low": 0.0, "high": rows - 1.0})
        return draft.emit("cast", [clipped], {"dtype": "i32"})
    if rows is not None and random.random() < 0.2:
        return draft.emit("iota", [], {"size": random.randint(0, rows)})
    return draft.input(TensorType("i32", draft.shape(random.choice((0, 1, 1, 2)))))


def gather(draft: Draft) -> Any:
    table = draft.of((*FLOATS, *FLOATS, "i32"), least=1)
    rows = table.type.shape[0]
    fixed = None if isinstance(rows, Batch) else rows
    index = checked(draft, fixed) if fixed and draft.random.random() < 0.5 else indices(draft, fixed)
    return draft.emit("gather", [table, index], {})


def check_index(draft: Draft) -> Any:
    return checked(draft, draft.random.randint(1, 7))


def checked(draft: Draft, rows: int) -> Value:
    """Integers of a few operations, which may leave a table of about `rows` rows, or cannot."""
    random = draft.random
    index = indices(draft, rows + 1)
    for _ in range(random.choice((0, 1, 1, 2))):
        name = random.choice(("add", "sub", "mul", "max", "min", "mod", "floor_div"))
        other = literal(random.randint(1 if name in ("mod", "floor_div") else -1, 3), "i32")
        index = draft.emit(name, [index, other], {})
    size = rows if random.random() < 0.4 else rows + random.randint(0, 6)
    draft.emit("check_index", [index], {"size": size})
    return draft.graph.nodes[-1].result


def scatter_add(draft: Draft) -> Any:
    rows = draft.random.randint(1, 5)
    index = indices(draft, rows)
    updates = draft.typed(TensorType(draft.random.choice(SIGNED), index.type.shape + draft.shape(1, batch=False)))
    return draft.emit("scatter_add", [index, updates], {"size": rows})


def random_numbers(draft: Draft) -> Any:
    seed, step = draft.typed(TensorType("i64")), draft.typed(TensorType("i32"))
    distribution = draft.random.choice(("uniform", "uniform", "normal", "truncated_normal"))
    attributes = {"shape": draft.shape(), "distribution": distribution, "stream": draft.random.randint(0, 9)}
    return draft.emit("random", [seed, step], attributes)


def orthogonalize(draft: Draft) -> Any:
    """Applied to random numbers, which no gradient reaches: the op has no gradient."""
    seed, step = draft.typed(TensorType("i64")), draft.typed(TensorType("i32"))
    shape = (draft.dim(1), draft.dim(1))
    drawn = draft.emit("random", [seed, step], {"shape": shape, "distribution": "normal"})
    return draft.emit("orthogonalize", [drawn], {})


def scan(draft: Draft) -> Any:
    """A scan with a body of a few ops, drawn in the same way."""
    random = draft.random
    first = draft.floats(least=1)
    length = first.type.shape[0]
    carries = [draft.floats() for _ in range(random.choice((0, 1, 1, 1, 2)))]
    sequences = [first]
    if random.random() < 0.4:
        sequences.append(draft.typed(TensorType("f32", (length, *draft.shape(random.choice((0, 1, 2)))))))
    constants = [draft.of(NUMBERS) for _ in range(random.choice((0, 0, 1, 2)))]
    body = Graph("body")
    inner = Draft(random, body)
    for prefix, kind, values in (("h", "carry", carries), ("s", "sequence", sequences), ("k", "constant", constants)):
        for i, value in enumerate(values):
            type = value.type.with_shape(value.type.shape[1:]) if kind == "sequence" else value.type
            inner.known(inner.builder.input(f"{prefix}{i}", type, kind), min(draft.limit(value), 4.0))
    inner.closed = True
    inner_names = [name for name in PROPOSALS if name not in OUTSIDE_BODIES]
    for _ in range(random.randint(1, 5)):
        attempt(inner, random.choice(inner_names))
    following = [next_carry(inner, value) for value in body.inputs[: len(carries)]]
    steps = [random.choice(inner.values) for _ in range(random.choice((0, 1, 1, 2)))]
    if not following and not steps:
        steps = [inner.values[-1]]
    body.outputs = {f"y{i}": value for i, value in enumerate([*following, *steps])}
    operands = [*(draft.small(value, 4.0) for value in carries), *sequences, *constants]
    attributes = {"carries": len(carries), "sequences": len(sequences), "reverse": random.random() < 0.4, "body": body}
    return draft.emit("scan", operands, attributes)


def next_carry(draft: Draft, carry: Value) -> Value:
    """A value of the carry's type that does not grow from step to step."""
    if draft.random.random() < 0.15:
        return draft.typed(carry.type)
    mixed = draft.emit("add", [carry, draft.small(draft.typed(carry.type))], {})
    if draft.random.random() < 0.3:
        return draft.emit("mul", [mixed, literal(0.5, carry.type.dtype)], {})
    return draft.emit("tanh", [mixed], {})


OUTSIDE_BODIES = ("scan", "random", "orthogonalize", "gather", "check_index", "scatter_add", "fold")
PROPOSALS: dict[str, Proposal] = {
    **{name: binary(name) for name in ("add", "sub", "mul", "max", "min", "lt", "le", "eq")},
    **{name: unary(name) for name in ("neg", "abs", "sign", "floor", "tanh", "stop_gradient", "copy")},
    **{name: unary(name, 30.0) for name in ("sin", "cos", "erf")},
    "exp": unary("exp", 4.0),
    **{name: of_positive(name) for name in ("log", "log1p", "sqrt")},
    **{name: logic(name) for name in ("and", "or", "not")},
    "div": divide("div"),
    **{name: quotient(name) for name in ("floor_div", "mod")},
    "pow": power,
    "clip": clip,
    "cast": cast,
    "select": select,
    "sum": reduction("sum", ("i32", "i64")),
    "reduce_max": reduction("reduce_max", INTEGERS),
    "argmax": argmax,
    "sum_of_products": sum_of_products,
    "reshape": reshape,
    "transpose": transpose,
    "broadcast": broadcast,
    "concat": concat,
    "slice": slices,
    "pad": pad,
    "flip": flip,
    "extent": lambda draft: draft.emit("extent", [], {"factor": draft.dim(), "power": draft.random.choice((1, 1, 2))}),
    "matmul": matmul,
    "conv2d": conv2d,
    "conv2d_input_grad": conv2d_input_grad,
    "conv2d_filter_grad": conv2d_filter_grad,
    **{
        name: max_pool2d(name)
        for name in ("max_pool2d", "max_pool2d_grad", "max_pool2d_with_index", "max_pool2d_route")
    },
    "patches": patches,
    "fold": fold,
    "iota": lambda draft: draft.emit("iota", [], {"size": draft.random.choice((0, 1, 2, 5, Batch(), Batch(2)))}),
    "check_index": check_index,
    "gather": gather,
    "scatter_add": scatter_add,
    "random": random_numbers,
    "orthogonalize": orthogonalize,
    "scan": scan,
}
MADE_BY_PASSES = {"fused"}


def of_samples(op: Op) -> Proposal:
    """For functions of one float tensor: of values in the range of its samples."""
    low = min(operand.low for sample in op.samples for operand in sample.operands)
    high = max(operand.high for sample in op.samples for operand in sample.operands)
    return of_positive(op.name) if low > 0 else unary(op.name, high)


PROPOSALS |= {
    name: of_samples(op)
    for name, op in OPS.items()
    if name not in PROPOSALS and op.on_number is not None and not op.attributes
}
assert set(PROPOSALS) | MADE_BY_PASSES == set(OPS), "every op of the table is generated"


def attempt(draft: Draft, name: str) -> bool:
    """Proposes one application of an op; returns whether its rule accepted it."""
    try:
        PROPOSALS[name](draft)
    except TypeRuleError:
        draft.rejected += 1
        return False
    return True
