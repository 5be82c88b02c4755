"""Tensor types: a dtype and a shape whose dimensions are integers or multiples of the run-time batch `B`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

FLOATS = ("f32", "f64")
INTEGERS = ("i32", "i64", "u8")
BYTES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "u8": 1, "bool": 1}
DTYPES = tuple(BYTES)
NUMPY_NAMES = {"f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8", "bool": "bool_"}
LARGEST_FLOATS = {"f32": 3.4028234663852886e38, "f64": 1.7976931348623157e308}
LARGEST_DIMENSION = 2**31 - 1
LARGEST_RANK = 16  # NumPy ends at 32 or 64, and a view may have more axes than its tensor
LARGEST_TENSOR = 2**62


@dataclass(frozen=True, slots=True)
class Batch:
    """The dimension `factor * B`, known only at run time."""

    factor: int = 1

    def __str__(self) -> str:
        return "B" if self.factor == 1 else f"{self.factor}*B"


Dim = int | Batch
Shape = tuple[Dim, ...]


class TypeRuleError(Exception):
    """An op was given operands or attributes that its rule does not allow; the caller knows where in the model."""

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
    """Whether a number is a value of a dtype: whole and in range for integers, and no float overflows to infinity."""
    if dtype in FLOATS:
        return not LARGEST_FLOATS[dtype] < abs(value) < float("inf")
    least, most = -(2 ** (8 * BYTES[dtype] - 1)), 2 ** (8 * BYTES[dtype] - 1) - 1
    if dtype == "u8":
        least, most = 0, 2**8 - 1
    return least <= value <= most and value == int(value)


def extent(shape: Iterable[Dim]) -> Extent:
    """The number of elements of a shape."""
    dims = tuple(shape)
    factor = prod(d.factor if isinstance(d, Batch) else d for d in dims)
    return Extent(factor, sum(isinstance(d, Batch) for d in dims) if factor else 0)


def merged(dims: Iterable[Dim]) -> Dim:
    """One dimension in place of several, at most one of them the batch."""
    size = extent(dims)
    if size.power > 1:
        raise TypeRuleError("two batch dimensions cannot be merged", "at most one", str(size))
    return Batch(size.factor) if size.power else size.factor


def at_batch(shape: Iterable[Dim], batch: int) -> tuple[int, ...]:
    """The shape with `B` bound."""
    return tuple(d.factor * batch if isinstance(d, Batch) else d for d in shape)


@dataclass(frozen=True, slots=True)
class TensorType:
    """`f32[B, 28, 28]`; a scalar is `f32[]`."""

    dtype: str
    shape: Shape = ()

    def __post_init__(self) -> None:
        if len(self.shape) > LARGEST_RANK:
            raise TypeRuleError("a tensor has too many dimensions", f"at most {LARGEST_RANK}", str(len(self.shape)))
        for dim in self.shape:
            size = dim.factor if isinstance(dim, Batch) else dim
            if not 0 <= size <= LARGEST_DIMENSION:
                raise TypeRuleError("a dimension is out of range", f"0 to {LARGEST_DIMENSION}", str(dim))
        if extent(self.shape).factor > LARGEST_TENSOR:
            raise TypeRuleError("a tensor is too large", f"at most {LARGEST_TENSOR} elements", show_shape(self.shape))

    def __str__(self) -> str:
        return self.dtype + show_shape(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def with_shape(self, shape: Iterable[Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: str) -> TensorType:
        return TensorType(dtype, self.shape)

    def bytes_at(self, batch: int) -> int:
        return BYTES[self.dtype] * extent(self.shape).at(batch)


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
    """NumPy's broadcasting rule; `B` only meets `B` or 1."""
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
