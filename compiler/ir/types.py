"""Tensor types: a dtype, and a shape whose dimensions are integers or multiples of the run-time batch `B`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import ClassVar

FLOATS = ("f32", "f64")
INTEGERS = ("i32", "i64", "u8")
BYTES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "u8": 1, "bool": 1}
DTYPES = tuple(BYTES)
NUMPY_NAMES = {"f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8", "bool": "bool_"}
LARGEST_FLOATS = {"f32": 3.4028234663852886e38, "f64": 1.7976931348623157e308}
LARGEST_DIMENSION = 2**31 - 1
LARGEST_RANK = 16  # NumPy stops at 32 or 64, and a view may have more axes than its tensor
LARGEST_TENSOR = 2**62
TYPICAL_BATCH = 128  # for estimates of size and speed; nothing else depends on it
SAMPLE_BATCH = 1_000_003  # a prime that no static dimension equals by chance: what holds for it holds for every batch


class Interned:
    """Immutable, and equal values are one object, so comparing and hashing are cheap."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")


class Batch(Interned):
    """The dimension `factor * B`, known only at run time."""

    __slots__ = ("factor",)
    factor: int
    known: ClassVar[dict[int, Batch]] = {}

    def __new__(cls, factor: int = 1) -> Batch:
        if factor not in cls.known:
            batch = super().__new__(cls)
            object.__setattr__(batch, "factor", factor)
            cls.known[factor] = batch
        return cls.known[factor]

    def __repr__(self) -> str:
        return f"Batch({self.factor})"

    def __str__(self) -> str:
        return "B" if self.factor == 1 else f"{self.factor}*B"


Dim = int | Batch
Shape = tuple[Dim, ...]


class TypeRuleError(Exception):
    """An op was given operands or attributes that its rule does not allow. The caller adds the place in the model."""

    def __init__(self, message: str, expected: str | None = None, found: str | None = None):
        super().__init__(message)
        self.message, self.expected, self.found = message, expected, found

    def __str__(self) -> str:
        parts = [self.message]
        parts += [f"expected {self.expected}"] if self.expected else []
        parts += [f"found {self.found}"] if self.found else []
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Extent:
    """A number of elements, `factor * B**power`."""

    factor: int
    power: int = 0

    def at(self, batch: int) -> int:
        return self.factor * batch**self.power

    def __str__(self) -> str:
        names = ["B"] * self.power
        return "*".join(names if self.factor == 1 and names else [str(self.factor), *names])


def fits(value: float, dtype: str) -> bool:
    """Whether a dtype can represent a number: integers whole and in range, floats without overflow to infinity."""
    if dtype in FLOATS:
        return not LARGEST_FLOATS[dtype] < abs(value) < float("inf")
    least, most = -(2 ** (8 * BYTES[dtype] - 1)), 2 ** (8 * BYTES[dtype] - 1) - 1
    if dtype == "u8":
        least, most = 0, 2**8 - 1
    return least <= value <= most and value == int(value)


def extent(shape: Iterable[Dim]) -> Extent:
    """The number of elements of a shape."""
    return extent_of(tuple(shape))


@cache
def extent_of(dims: Shape) -> Extent:
    factor = prod(d.factor if isinstance(d, Batch) else d for d in dims)
    return Extent(factor, sum(isinstance(d, Batch) for d in dims) if factor else 0)


def merged(dims: Iterable[Dim]) -> Dim:
    """Several dimensions, at most one of them the batch, as one."""
    size = extent(dims)
    if size.power > 1:
        raise TypeRuleError("two batch dimensions cannot be merged", "at most one", str(size))
    return Batch(size.factor) if size.power else size.factor


def at_batch(shape: Iterable[Dim], batch: int) -> tuple[int, ...]:
    """The shape with `B` bound."""
    return tuple(d.factor * batch if isinstance(d, Batch) else d for d in shape)


class TensorType(Interned):
    """`f32[B, 28, 28]`; a scalar is `f32[]`."""

    __slots__ = ("dtype", "is_float", "rank", "shape")
    dtype: str
    shape: Shape
    rank: int
    is_float: bool
    known: ClassVar[dict[tuple[str, Shape], TensorType]] = {}

    def __new__(cls, dtype: str, shape: Shape = ()) -> TensorType:
        if (dtype, shape) not in cls.known:
            check_shape(shape)
            type = super().__new__(cls)
            values = (dtype, dtype in FLOATS, len(shape), shape)
            for name, value in zip(cls.__slots__, values, strict=True):
                object.__setattr__(type, name, value)
            cls.known[dtype, shape] = type
        return cls.known[dtype, shape]

    def __repr__(self) -> str:
        return f"TensorType({self})"

    def __str__(self) -> str:
        return self.dtype + show_shape(self.shape)

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: str) -> TensorType:
        return TensorType(dtype, self.shape)

    def bytes_at(self, batch: int) -> int:
        return BYTES[self.dtype] * extent(self.shape).at(batch)


def check_shape(shape: Shape) -> None:
    """Raises TypeRuleError if no tensor can have this shape."""
    if len(shape) > LARGEST_RANK:
        raise TypeRuleError("a tensor has too many dimensions", f"at most {LARGEST_RANK}", str(len(shape)))
    for dim in shape:
        size = dim.factor if isinstance(dim, Batch) else dim
        if not 0 <= size <= LARGEST_DIMENSION:
            raise TypeRuleError("a dimension is out of range", f"0 to {LARGEST_DIMENSION}", str(dim))
    if extent(shape).factor > LARGEST_TENSOR:
        raise TypeRuleError("a tensor is too large", f"at most {LARGEST_TENSOR} elements", show_shape(shape))


def show_shape(shape: Iterable[Dim]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def parse_dim(text: str) -> Dim:
    """`28`, `B` or `2*B`."""
    match = re.fullmatch(r"(?:(\d+)\*)?B|(\d+)", text.strip())
    if match is None:
        raise ValueError(f"not a dimension: {text!r}")
    return int(match[2]) if match[2] else Batch(int(match[1] or 1))


def parse_type(text: str) -> TensorType:
    """Reads what `str(TensorType)` prints."""
    match = re.fullmatch(r"(\w+)\[(.*)\]", text.strip())
    if match is None or match[1] not in DTYPES:
        raise ValueError(f"not a tensor type: {text!r}")
    return TensorType(match[1], tuple(parse_dim(dim) for dim in match[2].split(",")) if match[2].strip() else ())


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting rule; `B` is only compatible with `B` and 1."""
    if len(set(shapes)) == 1:
        return shapes[0]
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for column in zip(*((1,) * (rank - len(s)) + tuple(s) for s in shapes), strict=True):
        sizes = sorted({d for d in column if d != 1}, key=str)
        if len(sizes) > 1:
            raise TypeRuleError(
                "the shapes do not broadcast", "equal dimensions, or 1", " and ".join(map(show_shape, shapes))
            )
        result.append(sizes[0] if sizes else 1)
    return tuple(result)
