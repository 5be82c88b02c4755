"""One element of a tensor as C: what differs from CUDA, and the arrays of a region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compiler.ir.graph import Graph, Literal, Value
from compiler.ir.types import Dim, Shape, TensorType
from compiler.targets.c.pooling import POOLING
from compiler.targets.c_text.elements import Elements
from compiler.targets.c_text.indices import Coordinate, ElementIndex, Indices, size_of
from compiler.targets.c_text.scalars import C_TYPES, ExpressionWriter
from compiler.targets.c_text.scalars import EXPRESSIONS as CUDA_EXPRESSIONS

ARRAY_TYPES = {**C_TYPES, "bool": "unsigned char"}  # which compilers vectorize, unlike arrays of bool
SUM_TYPES = {
    "f32": "double",
    "f64": "double",
    "i32": "long long",
    "i64": "long long",
    "u8": "long long",
}  # 8 bytes each
SIMD = "#pragma omp simd"


def function(name: str) -> ExpressionWriter:
    """A function of runtime/native/functions.h: one for each dtype."""
    return lambda node, values: f"{name}_{node.result.type.dtype}({', '.join(values)})"


FUNCTIONS = ("floor_div", "mod", "pow", "floor", "exp", "expm1", "log", "log1p", "sqrt", "tanh", "erf", "sin", "cos")
EXPRESSIONS: Mapping[str, ExpressionWriter] = {
    **CUDA_EXPRESSIONS,
    **{name: function(name) for name in FUNCTIONS},
    "normal_cdf": function("normcdf"),
}


@dataclass(frozen=True)
class Array:
    """A tensor in the arena, as a region reads or writes it."""

    name: str
    type: TensorType
    place: str  # bytes from the start of the arena, as C
    written: bool = False
    shared: bool = False  # whether the region also writes, or reads, these bytes under another name

    @property
    def declaration(self) -> str:
        kind = f"{'' if self.written else 'const '}{ARRAY_TYPES[self.type.dtype]}"
        restrict = "" if self.shared else "restrict "
        return f"{kind} *{restrict}const {self.name} = ({kind} *)(s->arena + {self.place});"


@dataclass(frozen=True)
class RegionCall:
    """A region to be written as a function: its body, and the arrays of its inputs and outputs."""

    name: str
    body: Graph
    read: Mapping[Value, Array]
    written: Sequence[Array]

    @property
    def arrays(self) -> list[Array]:
        return [*self.read.values(), *self.written]


class CElements(Elements):
    """Writes statements of C, in loops that the compiler vectorizes."""

    expressions = EXPRESSIONS
    index_type = "long"
    rules = POOLING

    def __init__(self, call: RegionCall, indices: Indices):
        super().__init__(call.body, {value: array.name for value, array in call.read.items()}, indices)
        self.used |= {array.name for array in call.written}
        self.call = call

    def nearest(self, row: Coordinate, rows: Dim) -> str:
        return f"nearest({row}, {size_of(rows)})"

    @contextmanager
    def over(self, name: str, start: Coordinate, end: Coordinate, simd: str = "") -> Iterator[None]:
        """A loop, with the pragma `simd` before it."""
        if simd:
            self.write(simd)
        with self.block(f"for (long {name} = {start}; {name} < {end}; ++{name})"):
            yield

    def know(self, value: Value, index: ElementIndex, text: str) -> None:
        """From here on, to the end of the block, the element at this index is this expression."""
        index = tuple(0 if dim == 1 else part for part, dim in zip(index, value.type.shape, strict=True))
        self.blocks[-1][value, index] = text

    def hoist_scalars(self) -> None:
        """Reads operands of one element, and computes everything of one element that depends on no others."""
        known: set[Value] = set()
        for value, array in self.call.read.items():
            if is_scalar(value.type.shape) and not array.shared:
                self.know(value, (0,) * value.type.rank, self.variable(value, f"{array.name}[0]"))
                known.add(value)
        for node in self.call.body.nodes:
            plain = not node.op.reduces and node.op.name != "random"
            given = all(isinstance(value, Literal) or value in known for value in node.operands)
            if plain and given and all(is_scalar(value.type.shape) for value in node.results):
                for value in node.results:
                    self.at(value, (0,) * value.type.rank)
                    known.add(value)


def is_scalar(shape: Shape) -> bool:
    return all(dim == 1 for dim in shape)


def shares(name: str, size: Coordinate, unit: int = 1) -> list[str]:
    """Declares the share of this thread in a number of items: `name_from` and `name_to`."""
    first, last = f"{name}_from", f"{name}_to"
    return [f"long {first}, {last};", f"share({size}, {unit}, s->part, s->parts, &{first}, &{last});"]
