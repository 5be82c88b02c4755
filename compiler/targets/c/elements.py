"""One element of a tensor as C: what differs from CUDA, and the arrays of a region."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compiler.ir.graph import Graph, Literal, Value
from compiler.ir.types import Dim, Shape, TensorType
from compiler.targets.c.pooling import POOLING
from compiler.targets.c_text.elements import INDENT, Elements
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


@dataclass
class Row:
    """The innermost loop: its variable, and the bytes that are converted before and after it (widen in regions.h)."""

    name: str  # of the coordinate along the last axis
    start: Coordinate  # of this coordinate
    place: str  # the iteration, from 0
    count: Coordinate  # iterations
    room: int  # the most iterations
    before: list[str]
    after: list[str]
    staged: dict[tuple[Value, Coordinate], str]


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

    row: Row | None = None

    @contextmanager
    def over(self, name: str, start: Coordinate, end: Coordinate, simd: str = "", room: int = 0) -> Iterator[None]:
        """A loop, after the pragma `simd`. With `room`, the most iterations, bytes are converted outside of it."""
        place = name if start in (0, "0") else f"{name} - {start}"
        count = end if start in (0, "0") else f"{end} - {start}"
        with self.row_of(Row(name, start, place, count, room, [], [], {}) if room and simd else None):
            if simd:
                self.write(simd)
            with self.block(f"for (long {name} = {start}; {name} < {end}; ++{name})"):
                yield

    @contextmanager
    def row_of(self, row: Row | None) -> Iterator[None]:
        """Statements around an innermost loop: what it needs converted is written before and after them."""
        outer, self.row = self.row, row or self.row
        first = len(self.lines)
        yield
        self.row = outer
        if row:
            self.lines[first:first] = [INDENT * self.depth + line for line in row.before]
            for line in row.after:
                self.write(line)

    def at(self, value: Value, index: ElementIndex) -> str:
        staged = self.staged(value, index) if value in self.arrays and value not in self.reduced else ""
        return staged or super().at(value, index)

    def staged(self, value: Value, index: ElementIndex) -> str:
        """The element of a row of bytes that are converted before the loop; empty if it is none."""
        row, base = self.row, self.base_of(value.type, index)
        if row is None or base is None:
            return ""
        if (value, base) not in row.staged:
            row.staged[value, base] = name = self.fresh(f"{self.arrays[value]}_row")
            row.before += [f"int {name}[{row.room}];", f"widen({name}, {self.arrays[value]} + {base}, {row.count});"]
        return f"{row.staged[value, base]}[{row.place}]"

    def base_of(self, type: TensorType, index: ElementIndex) -> Coordinate | None:
        """Where the row of a tensor of bytes begins that the innermost loop goes along; None if it does not."""
        row = self.row
        if row is None or type.dtype not in ("u8", "bool") or not index or index[-1] != row.name:
            return None
        if any(re.search(rf"\b{row.name}\b", str(part)) for part in index[:-1]):
            return None
        return self.indices.join((*index[:-1], row.start), type.shape)

    def store(self, array: Array, position: Coordinate, text: str, base: Coordinate | None = None) -> None:
        """Writes an element; bytes to a row that is converted after the loop, if `base` says where it begins."""
        row = self.row
        if row is None or base is None or array.type.dtype not in ("u8", "bool"):
            self.write(f"{array.name}[{position}] = {text};")
            return
        name = self.fresh(f"{array.name}_row")
        row.before.append(f"int {name}[{row.room}];")
        row.after.append(f"narrow({array.name} + {base}, {name}, {row.count});")
        self.write(f"{name}[{row.place}] = {text};")

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
