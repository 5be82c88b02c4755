"""What an op is, and the table of all ops.

An op's attributes, shape rule, gradient rule, float64 reference, facts and test samples are written in one block, in
compiler/ops. Importing that package fills the table; everything in compiler/ir looks ops up by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.ir.types import NUMPY_NAMES, TensorType, TypeRuleError, at_batch, parse_type

REQUIRED = object()

# Traits: passes and targets ask for the trait and never list names.
ELEMENTWISE = "elementwise"  # one output element per broadcast input element
COMMUTATIVE = "commutative"
VIEW = "view"  # a code generator may return a view of the first operand
IN_ORDER = "in order"  # of views: the elements stay in reading order
RANDOM = "random"  # two equal nodes differ: never merged
MAY_FAIL = "may fail"  # the step fails for some operands: never computed at compile time
BATCH = "batch"  # the reference gets the run-time batch as the keyword `batch`
PRODUCT = "product"  # a sum of products over a long axis: a matrix product, or a convolution
CONVOLUTION = "convolution"  # a convolution of images, or one of its adjoints: see ops/convolution.py
IMAGES = "images"  # the results are images [N, H, W, C]
LOOP = "loop"  # runs its body once per step; the results are the last carries, then stacks of per-step outputs
REGION = "region"  # runs its body once; the results are the outputs of the body

# reference of the shape rule, gradient rule and cost: see Op
TypeRule = Callable[..., TensorType | Sequence[TensorType]]
GradientRule = Callable[..., Sequence[Any]]
CostRule = Callable[[Sequence[TensorType], Sequence[TensorType], int], int]


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of a sample: its type and the range its values are drawn from."""

    type: TensorType
    low: float = -2.0
    high: float = 2.0

    def draw(self, generator: np.random.Generator, batch: int) -> np.ndarray:
        """Random values as the interpreter stores them: floats of every width as float64; integers include `high`."""
        shape = at_batch(self.type.shape, batch)
        if self.type.is_float:
            return generator.uniform(self.low, self.high, shape)
        if self.type.dtype == "bool":
            return np.asarray(generator.random(shape) < 0.5)
        low = max(self.low, 0) if self.type.dtype == "u8" else self.low
        return np.asarray(generator.integers(int(low), int(self.high), shape, endpoint=True)).astype(
            NUMPY_NAMES[self.type.dtype]
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """Operands and attributes that an op accepts; with `error`, that it must refuse with a message containing it.

    An attribute may be a function that creates it, such as the body of a `scan`: every node needs its own.
    """

    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any]
    error: str = ""

    def make_attributes(self) -> dict[str, Any]:
        return {name: value() if callable(value) else value for name, value in self.attributes.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """A primitive: its rules, and the facts about it that more than one part of the compiler asks for.

    infer(types, **attributes) -> type or types        raises TypeRuleError
    reference(*arrays, **attributes) -> array or arrays    float64 NumPy, written for clarity
    gradient(builder, node, *result_gradients) -> one gradient or None (zero) per operand. Gradients of elementwise ops
        may have the result's shape; autodiff sums them back to the operand's. Ops with a body get their rule from
        compiler/gradient; any other op without a rule cannot be differentiated.
    reduces: how it combines elements along its attribute `axes` or `axis`, if it does: "sum", "max", or "argmax"
    lookup: the operands (table, indices) if it reads only the rows of a table that the indices name
    cost(operand types, result types, batch) -> operations on numbers, each addition, multiplication, comparison or
        function counted as one. Default: one per result element if elementwise, else 0.
    on_number: the function on a compile-time number, which makes the op a builtin of the language under its own name
    """

    name: str
    infer: TypeRule
    reference: Callable[..., Any]
    gradient: GradientRule | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()
    reduces: str = ""
    lookup: tuple[int, int] | None = None
    cost: CostRule | None = None
    on_number: Callable[[Any], float] | None = None
    samples: tuple[Sample, ...] = ()
    errors: tuple[Sample, ...] = ()

    def result_types(self, types: Sequence[TensorType], attributes: Mapping[str, Any]) -> tuple[TensorType, ...]:
        inferred = self.infer(types, **attributes)
        return (inferred,) if isinstance(inferred, TensorType) else tuple(inferred)

    def complete(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes in declared order, defaults filled in."""
        if unknown := sorted(set(attributes) - set(self.attributes)):
            raise TypeRuleError(f"{self.name} has no attribute {unknown[0]}", ", ".join(self.attributes), unknown[0])
        complete = {name: attributes.get(name, default) for name, default in self.attributes.items()}
        if missing := [name for name, value in complete.items() if value is REQUIRED]:
            raise TypeRuleError(f"{self.name} needs the attribute {missing[0]}")
        for name, value in complete.items():
            if isinstance(self.attributes[name], bool) and not isinstance(value, bool):
                raise TypeRuleError(f"{name} is not valid", "true or false", str(value))
        return complete


# The table ------------------------------------------------------------------------------------------------------------

OPS: dict[str, Op] = {}


def register(*ops: Op) -> None:
    """Adds ops to the table."""
    for op in ops:
        assert op.name not in OPS, f"two ops are named {op.name}"
        OPS[op.name] = op


def known_ops() -> Mapping[str, Op]:
    """All ops by name; raises LookupError until compiler.ops is imported."""
    if not OPS:
        raise LookupError("the table of ops is empty: `import compiler.ops` fills it, and must come first")
    return OPS


# Samples --------------------------------------------------------------------------------------------------------------


def operand(text: str) -> Operand:
    """`f32[3,4]`, or with a range for its values `f32[3,4] 0.5..2`."""
    match = re.fullmatch(r"(\w+\[.*?\])(?: (\S+)\.\.(\S+))?", text)
    if match is None:
        raise ValueError(f"not a sample operand: {text!r}")
    return Operand(parse_type(match[1]), *(float(bound) for bound in match.groups()[1:] if bound is not None))


def sample(*operands: str, **attributes: Any) -> Sample:
    return Sample(tuple(map(operand, operands)), attributes)


def error(message: str, *operands: str, **attributes: Any) -> Sample:
    return Sample(tuple(map(operand, operands)), attributes, message)


def expect_count(types: Sequence[TensorType], count: int) -> None:
    if len(types) != count:
        raise TypeRuleError("wrong number of operands", str(count), str(len(types)))
