"""What an op is: attributes, shape rule, gradient rule, float64 reference, traits and samples, all in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.ir.types import NUMPY_NAMES, TensorType, TypeRuleError, at_batch, parse_type

if TYPE_CHECKING:
    from compiler.ir.graph import Value

REQUIRED = object()

# Traits are data: a pass asks for the trait and never lists names.
ELEMENTWISE = "elementwise"  # one output element per broadcast input element
COMMUTATIVE = "commutative"
VIEW = "view"  # a code generator may return a view of the first operand
RANDOM = "random"  # two equal nodes differ: never merged
BATCH = "batch"  # the reference takes the run-time batch as the keyword `batch`

Rule = Callable[..., TensorType | Sequence[TensorType]]
Gradient = Callable[..., Sequence["Value | None"]]


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of a sample: its type and the range its values are drawn from."""

    type: TensorType
    low: float = -2.0
    high: float = 2.0

    def draw(self, generator: np.random.Generator, batch: int) -> np.ndarray:
        """Random values as the interpreter holds them: floats of every width as float64; integers include `high`."""
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
    """Operands and attributes that an op accepts (or, with `error`, must refuse with a message holding that text).

    An attribute may be a function that makes it: the body of a `scan`, of which every node needs its own.
    """

    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any]
    error: str = ""

    def make_attributes(self) -> dict[str, Any]:
        return {name: value() if callable(value) else value for name, value in self.attributes.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """A primitive.

    infer(types, **attributes) -> type or types        raises TypeRuleError
    gradient(builder, node, *result_gradients) -> one gradient or None (zero) per operand. Those of elementwise ops may
        have the result's shape; autodiff sums them back to the operand's. Without a rule: cannot be differentiated.
    reference(*arrays, **attributes) -> array or arrays    float64 NumPy, written for clarity
    """

    name: str
    infer: Rule
    reference: Callable[..., Any]
    gradient: Gradient | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()
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
