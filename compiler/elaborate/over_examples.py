"""How values depend on the examples of a batch: whether a loss is a mean over them, and a total a sum.

Of each value one of these is proved, or nothing:

- it is the same for every batch ("fixed"),
- it has one axis of examples, and depends on the example at each place of it alone ("example"),
- it is a sum over the examples of what depends on each alone ("sum"), or the largest or smallest of these,

up to a factor B^power. A mean is a sum with the power -1. A weighted mean of such means, with the sizes of batches as
weights, is the mean over all data, whatever the batches are. So is any other value of the power -1, or a fixed one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from compiler.ir.graph import Node, Value
from compiler.ir.op import ELEMENTWISE, LOOP
from compiler.ir.types import NUMPY_NAMES, Batch, Dim, TensorType


@dataclass(frozen=True)
class Dependence:
    """How a value depends on a batch. `axis`: of the examples, counted from the end from 1."""

    kind: str  # fixed, example, sum, largest, smallest or unknown
    power: int = 0
    axis: int = 0

    @property
    def is_mean(self) -> bool:
        """Whether its mean over batches, weighted by their sizes, is its value for all data."""
        return self in (FIXED, MEAN)


FIXED, UNKNOWN, MEAN = Dependence("fixed"), Dependence("unknown"), Dependence("sum", -1)
# How totals are combined over batches, for what their expressions are; one of another kind is no total.
COMBINED_BY = {Dependence("sum"): "sum", Dependence("largest"): "max", Dependence("smallest"): "min"}
COMBINED_BY[Dependence("fixed", 1)] = "sum"  # a multiple of B
REVERSED = {"largest": "smallest", "smallest": "largest"}
Rule = Callable[[Node, Sequence[Dependence]], Dependence]
Known = Mapping[Value, Dependence]


def batch_axes(type: TensorType) -> list[int]:
    """The axes that have the batch in them, counted from the end."""
    return [type.rank - axis for axis, dim in enumerate(type.shape) if isinstance(dim, Batch)]


def of_source(value: Value) -> Dependence:
    """An output of the model, a target or a number: each example has a separate part."""
    axes = batch_axes(value.type)
    return FIXED if not axes else Dependence("example", 0, axes[0]) if len(axes) == 1 else UNKNOWN


def dependences(nodes: Sequence[Node], given: Known | None = None) -> dict[Value, Dependence]:
    """Of the results of nodes in order, and those given; all else that they read is a source."""
    known = dict(given or {})
    for node in nodes:
        operands = [known.get(each) or of_source(each) for each in node.operands]
        found = of_scan(node, operands) if LOOP in node.op.traits else [result_of(node, operands)] * len(node.results)
        for value, each in zip(node.results, found, strict=True):
            axes = batch_axes(value.type)
            matches = axes == [each.axis] if each.kind == "example" else not axes
            known[value] = each if matches else UNKNOWN
    return known


def of_scan(node: Node, operands: Sequence[Dependence]) -> list[Dependence]:
    """Of the last carries, and of the stacks of all steps. A carry depends on the batch as its first value does.

    A stack has the axis of its steps first, so the axis of the examples has the same place from the end.
    """
    carries, body = node.attributes["carries"], node.body
    steps = [
        UNKNOWN if each.kind == "example" and each.axis == value.type.rank else each
        for each, value in zip(operands, node.operands, strict=True)
    ]
    sequences = range(carries, carries + node.attributes["sequences"])
    given = [steps[i] if i in sequences else each for i, each in enumerate(operands)]
    known = dependences(body.nodes, dict(zip(body.inputs, given, strict=True)))
    found = [known.get(value) or of_source(value) for value in body.outputs.values()]
    kept = all(known.get(value) == each for value, each in zip(body.outputs.values(), given[:carries], strict=False))
    return found if kept else [UNKNOWN] * len(found)


def first_unknown(value: Value, known: Known) -> Node | None:
    """The node that made a value depend on the batch in an unknown way: the first of those that it depends on."""
    while value.node is not None and known.get(value) == UNKNOWN:
        unknown = [each for each in value.node.operands if known.get(each) == UNKNOWN]
        if not unknown:
            return value.node
        value = unknown[0]
    return value.node


def result_of(node: Node, given: Sequence[Dependence]) -> Dependence:
    if UNKNOWN in given:
        return UNKNOWN
    name = node.op.name
    if name == "extent":
        return Dependence("fixed", node.attributes["power"])
    if name == "random":
        return of_source(node.result)
    if rule := RULES.get(name):
        return rule(node, given)
    if all(each == FIXED for each in given):
        return FIXED
    if ELEMENTWISE in node.op.traits:
        return same_example(given)
    # Images and the like: the axis of examples is the first, and the other operands are weights.
    axes, (first, *others) = batch_axes(node.result.type), given
    alone = (
        first.kind == "example" and first.axis == node.operands[0].type.rank and all(each == FIXED for each in others)
    )
    on_first = name in ("conv2d", "max_pool2d", "patches") and alone and axes == [node.result.type.rank]
    return Dependence("example", first.power, node.result.type.rank) if on_first and first.power == 0 else UNKNOWN


# Elementwise ----------------------------------------------------------------------------------------------------------


def same_example(given: Sequence[Dependence]) -> Dependence:
    """A function of elements: its operands belong to one example, or are fixed."""
    examples = {each for each in given if each != FIXED}
    (only,) = examples if len(examples) == 1 else (UNKNOWN,)
    return only if only.kind == "example" and only.power == 0 else UNKNOWN


def sum_of(given: Sequence[Dependence]) -> Dependence:
    """Linear in all operands, which have one power."""
    if any(each.kind == "sum" for each in given):  # c B^p is the sum of c B^(p-1)
        given = [Dependence("sum", each.power - 1) if each.kind == "fixed" else each for each in given]
    elif any(each.kind == "example" for each in given):
        axis = next(each.axis for each in given if each.kind == "example")
        given = [Dependence("example", each.power, axis) if each.kind == "fixed" else each for each in given]
    return given[0] if len(set(given)) == 1 and given[0].kind in ("fixed", "example", "sum") else UNKNOWN


def product(node: Node, given: Sequence[Dependence]) -> Dependence:
    """Linear in each operand: all but one are fixed, or both are of one example."""
    a, b = sorted(given, key=lambda each: each.kind == "fixed")
    if a.kind in REVERSED:
        return UNKNOWN
    if b.kind == "fixed" or (a.kind, a.axis) == (b.kind, b.axis) == ("example", a.axis):
        return replace(a, power=a.power + b.power)
    return UNKNOWN


def quotient(node: Node, given: Sequence[Dependence]) -> Dependence:
    a, b = given
    if b.kind == "fixed" or (b.kind == "example" and a.kind in ("fixed", "example")):
        return product(node, [a, replace(b, power=-b.power)])
    return UNKNOWN


def negated(node: Node, given: Sequence[Dependence]) -> Dependence:
    return replace(given[0], kind=REVERSED.get(given[0].kind, given[0].kind))


def converted(node: Node, given: Sequence[Dependence]) -> Dependence:
    """A cast is linear if it keeps all numbers: not to integers from floats or wider integers, and not to bool."""
    to, of = (NUMPY_NAMES[each.type.dtype] for each in (node.result, node.operands[0]))
    exact = node.result.type.is_float or np.can_cast(of, to)
    return given[0] if exact else FIXED if given[0] == FIXED else same_example(given)


def chosen(node: Node, given: Sequence[Dependence]) -> Dependence:
    return sum_of(given[1:]) if given[0] == FIXED and given[1:] != [FIXED, FIXED] else all_of(given)


def all_of(given: Sequence[Dependence]) -> Dependence:
    return FIXED if all(each == FIXED for each in given) else same_example(given)


# Reductions and products ----------------------------------------------------------------------------------------------


def reduced(node: Node, given: Sequence[Dependence], over: str) -> Dependence:
    """`over`: what a reduction over the examples gives."""
    (operand,) = given
    axes = {node.operands[0].type.rank - axis for axis in node.reduced_axes}
    if operand.kind != "example":
        return operand
    if operand.axis in axes:
        return Dependence(over, operand.power) if over == "sum" or operand.power == 0 else UNKNOWN
    kept = node.attributes.get("keepdims", False)
    return replace(operand, axis=operand.axis if kept else operand.axis - sum(axis < operand.axis for axis in axes))


def largest(node: Node, given: Sequence[Dependence]) -> Dependence:
    return UNKNOWN if given[0].kind in ("sum", "smallest") else reduced(node, given, "largest")


def first_of_largest(node: Node, given: Sequence[Dependence]) -> Dependence:
    return UNKNOWN if given[0].kind not in ("fixed", "example") else reduced(node, given, "unknown")


def matrix_product(node: Node, given: Sequence[Dependence]) -> Dependence:
    """`[…, m, k] @ […, k, n]`: linear in each operand."""
    a, b = given
    if {a.kind, b.kind} & {"largest", "smallest"}:
        return UNKNOWN
    power = a.power + b.power
    if a.kind == b.kind == "example":
        if (a.axis, b.axis) == (1, 2):  # the axis of the examples is the one that is summed over
            return Dependence("sum", power)
        leading = a.axis == b.axis > 2
        return Dependence("example", power, a.axis) if leading else UNKNOWN
    one, other = (a, b) if b.kind == "fixed" else (b, a)
    summed_over = one.kind == "example" and one.axis == (1 if one is a else 2)
    if other.kind != "fixed" or summed_over:
        return UNKNOWN
    return replace(one, power=power)


# Shapes ---------------------------------------------------------------------------------------------------------------


def reshaped(node: Node, given: Sequence[Dependence]) -> Dependence:
    """The elements of one example stay together if the axes before that of the examples have as many as before."""
    (operand,), old, new = given, node.operands[0].type, node.result.type
    axes = batch_axes(new)
    if operand.kind != "example":
        return operand
    if len(axes) != 1:
        return UNKNOWN
    before = [elements(type.shape[: type.rank - axis]) for type, axis in ((old, operand.axis), (new, axes[0]))]
    return replace(operand, axis=axes[0]) if before[0] == before[1] else UNKNOWN


def elements(shape: Sequence[Dim]) -> int:
    return prod(dim for dim in shape if isinstance(dim, int))


def repeated(node: Node, given: Sequence[Dependence]) -> Dependence:
    axes = batch_axes(node.result.type)
    if given[0].kind == "fixed" and len(axes) == 1:
        return Dependence("example", given[0].power, axes[0])
    return given[0]


def permuted(node: Node, given: Sequence[Dependence]) -> Dependence:
    if given[0].kind != "example":
        return given[0]
    rank = node.result.type.rank
    return replace(given[0], axis=rank - node.attributes["permutation"].index(rank - given[0].axis))


def along_other_axes(node: Node, given: Sequence[Dependence]) -> Dependence:
    """Joins, parts and padding leave the axis of the examples as it is: its size says so. A flip has its axes."""
    found = sum_of(given)
    rank = node.result.type.rank
    if found.kind != "example":
        return found if node.op.name != "pad" or node.attributes["value"] == 0 or found == FIXED else UNKNOWN
    axis = rank - found.axis
    same = all(
        each.type.rank != rank or each.type.shape[axis] == node.result.type.shape[axis] for each in node.operands
    )
    joined = node.op.name == "concat" and node.attributes["axis"] == axis
    flipped = node.op.name == "flip" and axis in node.attributes["axes"]
    padded = node.op.name == "pad" and found.power != 0
    return found if same and not (joined or flipped or padded) else UNKNOWN


def looked_up(node: Node, given: Sequence[Dependence]) -> Dependence:
    table, indices = given
    if table != FIXED or indices.kind != "example" or indices.power:
        return FIXED if table == indices == FIXED else UNKNOWN
    return replace(indices, axis=indices.axis + node.operands[0].type.rank - 1)


RULES: dict[str, Rule] = {
    "add": lambda node, given: sum_of(given),
    "sub": lambda node, given: sum_of(given),
    "mul": product,
    "div": quotient,
    "neg": negated,
    "cast": converted,
    "stop_gradient": lambda node, given: given[0],
    "copy": lambda node, given: given[0],
    "check_index": lambda node, given: given[0],
    "select": chosen,
    "sum": lambda node, given: reduced(node, given, "sum") if given[0].kind not in REVERSED else UNKNOWN,
    "reduce_max": largest,
    "argmax": first_of_largest,
    "matmul": matrix_product,
    "reshape": reshaped,
    "broadcast": repeated,
    "transpose": permuted,
    "concat": along_other_axes,
    "slice": along_other_axes,
    "pad": along_other_axes,
    "flip": along_other_axes,
    "gather": looked_up,
}
