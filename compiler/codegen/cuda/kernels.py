"""Regions as kernels: maps become ElementwiseKernels, reductions RawKernels; both in the words of `elements.py`.

A kernel's parameters have the names that its operands and results have where it is called, so that its text can be read
beside the call. Arrays are in reading order, all of them; scalars that the model computes are arrays of one element.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compiler.codegen.cuda import convolutions
from compiler.codegen.cuda.convolutions import Epilogue, product_kernel
from compiler.codegen.cuda.elements import INDENT, Elements
from compiler.codegen.cuda.indices import Index, Indices, Position, elements, plus, size_of, times
from compiler.codegen.cuda.scalars import C_TYPES, CUPY_TYPES, DEVICE_FUNCTIONS, EXPRESSIONS, functions_in, least
from compiler.codegen.cuda.scalars import number as constant
from compiler.ir.graph import Graph, Node, Value, readers_of
from compiler.ir.types import Shape, TensorType
from compiler.kernels import (
    CONVOLUTIONS,
    ELEMENT,
    KEPT,
    SCALAR,
    THREADS,
    Reduction,
    is_convolution_with_epilogue,
    loop_shape,
    reduction_of,
    squeezed,
)

WORDS_OF_CPP = frozenset(  # and names that kernels use themselves
    [
        "alignas",
        "alignof",
        "and",
        "and_eq",
        "asm",
        "auto",
        "bitand",
        "bitor",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "class",
        "compl",
        "const",
        "const_cast",
        "constexpr",
        "continue",
        "decltype",
        "default",
        "delete",
        "do",
        "double",
        "dynamic_cast",
        "else",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "mutable",
        "namespace",
        "new",
        "noexcept",
        "not",
        "not_eq",
        "nullptr",
        "operator",
        "or",
        "or_eq",
        "private",
        "protected",
        "public",
        "register",
        "reinterpret_cast",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "static_assert",
        "static_cast",
        "struct",
        "switch",
        "template",
        "this",
        "thread_local",
        "throw",
        "true",
        "try",
        "typedef",
        "typeid",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "wchar_t",
        "while",
        "xor",
        "xor_eq",
        "abs",
        "min",
        "max",
        "i",
        "j",
        "k",
        "r",
        "c",
        "n",
        "B",
        "reducer",
        "inside",
        "scratch",
        "complex",
        "thrust",
        "half",
    ]
)
WORDS = re.compile(  # the same
    r"\w+_t|u?int\d*|float\d*|double\d*|[ijkrt]\d+(_\d+)?|.*(Idx|Dim|_done)|shared_.*|_.*"
)


FUNCTIONS = frozenset(DEVICE_FUNCTIONS) | {f"{name}{suffix}" for name in EXPRESSIONS for suffix in ("", "f")}


@dataclass(frozen=True)
class Array:
    """A parameter that is an array."""

    name: str  # in the kernel
    argument: str  # in Python, where it is called
    type: TensorType


@dataclass(frozen=True)
class DeviceKernel:
    """A kernel's definition and its call, in Python."""

    name: str
    definition: Sequence[str]
    call: str


@dataclass(frozen=True)
class Call:
    """A region to be written: its body, and what its operands, results and scratch space are called in Python."""

    name: str
    body: Graph
    arguments: Sequence[str]
    results: Sequence[str]
    scratch: str = ""

    def parameters(self) -> tuple[dict[Value, Array], list[Array]]:
        """The arrays that are read, by the inputs of the body, and those that are written."""
        taken: set[str] = set()

        def array(argument: str, type: TensorType) -> Array:
            name = f"x_{argument}_" if WORDS.fullmatch(argument) else argument
            while name in taken or name in WORDS_OF_CPP or name in FUNCTIONS:
                name += "_"
            taken.add(name)
            return Array(name, argument, type)

        used = {value for node in self.body.nodes for value in node.operands} | {*self.body.outputs.values()}
        pairs = zip(self.body.inputs, self.arguments, strict=True)
        read = {value: array(argument, value.type) for value, argument in pairs if value in used}
        outputs = zip(self.body.outputs.values(), self.results, strict=True)
        return read, [array(argument, value.type) for value, argument in outputs]


def device_kernel(call: Call) -> DeviceKernel:
    """The kernel of a region. What is no reduction of one shape is a map, whose threads add up alone."""
    if is_convolution_with_epilogue(call.body):
        return convolution_kernel(call)
    reduction = reduction_of(call.body.nodes, call.body.outputs)
    return map_kernel(call) if reduction is None else reduction_kernel(call, reduction)


def scratch_of(body: Graph) -> TensorType | None:
    """The scratch space that the kernel of a region needs."""
    if is_convolution_with_epilogue(body):
        return convolutions.scratch_of(convolution_of(body))
    reduction = reduction_of(body.nodes, body.outputs)
    return reduction.scratch if reduction else None


def constant_names(lines: Sequence[str]) -> list[str]:
    """The Python constants with the device functions that a text calls."""
    return [name.upper() for name in functions_in("\n".join(lines))]


# Maps -----------------------------------------------------------------------------------------------------------------


def map_kernel(call: Call) -> DeviceKernel:
    """One loop over the elements of the results; behind each other for results of different shapes."""
    read, written = call.parameters()
    islands: dict[Shape, list[tuple[Value, Array]]] = {}
    readers = readers_of(call.body)
    for value, array in zip(call.body.outputs.values(), written, strict=True):
        islands.setdefault(loop_shape(value, readers), []).append((value, array))
    lines: list[str] = []
    start: Position = 0
    for number, (shape, results) in enumerate(islands.items()):
        end = plus(start, elements(shape))
        if len(islands) == 1:
            lines += island(call.body, read, shape, results, "i")
        else:
            head = "else" if number == len(islands) - 1 else f"if (i < {end})"
            moved = [f"const int k = (int)(i - {in_brackets(start)});"] if number else ["const int k = (int)i;"]
            inner = moved + island(call.body, read, shape, results, "k")
            lines += [
                f"{'else ' if 0 < number < len(islands) - 1 else ''}{head} {{",
                *(INDENT + line for line in inner),
                "}",
            ]
        start = end
    return elementwise(call.name, [*read.values()], written, lines, start)


def in_brackets(position: Position) -> str:
    return str(position) if isinstance(position, int) else f"({position})"


def island(
    body: Graph, read: Mapping[Value, Array], shape: Shape, results: Sequence[tuple[Value, Array]], position: str
) -> list[str]:
    """Statements that compute results at a position in a shape, and write them behind all that is read."""
    indices = Indices()
    e = Elements(body, {value: array.name for value, array in read.items()}, indices)
    e.taken |= {array.name for _, array in results}
    named = named_index(indices, shape, position)
    stores = []
    for value, array in results:
        for part, place in parts_of(value, shape):
            text = e.at(part, indices.reshaped(named.index, shape, part.type.shape))
            stores.append(f"{array.name}[{place(indices, named.index, position)}] = {text};")
    return [*named.used_in([*e.lines, *stores]), *e.lines, *stores]


def parts_of(value: Value, shape: Shape) -> Iterator[tuple[Value, Callable[[Indices, Index, Position], Position]]]:
    """What a thread writes of a result, and where: one element, or one of each operand that it is put together from."""
    if squeezed(value.type.shape) == shape:
        yield value, lambda indices, index, position: position
        return
    assert value.node is not None
    axis, size = value.node.attributes["axis"], value.node.operands[0].type.shape[value.node.attributes["axis"]]

    def place(number: int) -> Callable[[Indices, Index, Position], Position]:
        def at(indices: Indices, index: Index, position: Position) -> Position:
            inner = list(indices.reshaped(index, shape, operands[number].type.shape))
            inner[axis] = plus(inner[axis], times(number, size_of(size)))
            return indices.join(tuple(inner), value.type.shape)

        return at

    operands = value.node.operands
    for number, operand in enumerate(operands):
        yield operand, place(number)


@dataclass(frozen=True)
class NamedIndex:
    """The positions along the axes of a shape, as variables that are declared where something reads them."""

    index: Index
    declarations: Mapping[str, str]

    def used_in(self, lines: Sequence[str]) -> Iterator[str]:
        words = set(re.findall(r"\w+", "\n".join(lines)))
        return (f"const int {name} = {text};" for name, text in self.declarations.items() if name in words)


def named_index(indices: Indices, shape: Shape, position: str, wanted: str = "i") -> NamedIndex:
    """Names for the positions along the axes that one in reading order stands for."""
    parts = Indices().split(position, shape)
    if len(squeezed(shape)) < 2:
        return NamedIndex(parts, {})
    names = [part if part == 0 else f"{wanted}{axis}" for axis, part in enumerate(parts)]
    indices.name(tuple(names), shape, position)
    return NamedIndex(tuple(names), {str(n): str(part) for n, part in zip(names, parts, strict=True) if n != 0})


def elementwise(
    name: str, read: Sequence[Array], written: Sequence[Array], lines: Sequence[str], size: Position
) -> DeviceKernel:
    """An ElementwiseKernel: everything raw, so that the text says itself which element it reads."""
    inputs = [f"raw {CUPY_TYPES[array.type.dtype]} {array.name}" for array in read]
    outputs = [f"raw {CUPY_TYPES[array.type.dtype]} {array.name}" for array in written]
    with_batch = bool(re.search(r"\bB\b", "\n".join(lines)))
    arguments = [*(array.argument for array in read), *(["B"] if with_batch else [])]
    arguments += [array.argument for array in written]
    functions = " + ".join(constant_names(lines))
    return DeviceKernel(
        name,
        [
            f"{name} = ElementwiseKernel(",
            f'{INDENT}"{", ".join([*inputs, *(["int32 B"] if with_batch else [])])}",',
            f'{INDENT}"{", ".join(outputs)}",',
            f'{INDENT}r"""',
            *(INDENT + line for line in lines),
            f'{INDENT}""",',
            f'{INDENT}"{name}",',
            *([f"{INDENT}preamble={functions},"] if functions else []),
            ")",
        ],
        f"{name}({', '.join(arguments)}, size={size})",
    )


# Convolutions ---------------------------------------------------------------------------------------------------------


def convolution_of(body: Graph) -> Node:
    return next(node for node in body.nodes if node.op.name in CONVOLUTIONS)


def convolution_kernel(call: Call) -> DeviceKernel:
    """A convolution, and statements for each of its elements: `value` at the index `i` of its result."""
    node = convolution_of(call.body)
    read, written = call.parameters()
    indices = Indices()
    e = Elements(call.body, {value: array.name for value, array in read.items()}, indices)
    e.taken |= {array.name for array in written}
    e.reduced[node.result] = "value"
    shape = squeezed(node.result.type.shape)
    named = named_index(indices, shape, "i")
    stores = []
    for value, array in zip(call.body.outputs.values(), written, strict=True):
        stores.append(f"{array.name}[i] = {e.at(value, indices.reshaped(named.index, shape, value.type.shape))};")
    lines = [*named.used_in([*e.lines, *stores]), *e.lines, *stores]
    words = set(re.findall(r"\w+", "\n".join(lines)))
    others = [array for array in read.values() if array.name in words]
    parameters = [(f"const {C_TYPES[array.type.dtype]}*", array.name) for array in others]
    parameters += [(f"{C_TYPES[array.type.dtype]}*", array.name) for array in written]
    kernel = product_kernel(node, call.name, Epilogue("\n".join(lines), tuple(parameters)))
    functions = "".join(f"{name} + " for name in constant_names(lines))
    arguments = [read[value].argument for value in node.operands]
    arguments += [array.argument for array in (*others, *written)]
    arguments += [call.scratch] if kernel.scratch else []
    return DeviceKernel(
        call.name,
        [f'{call.name} = RawKernel(CONVOLUTIONS + {functions}r"""', *kernel.text.splitlines(), f'""", "{call.name}")'],
        f"{call.name}({kernel.grid}, {kernel.block}, ({', '.join([*arguments, 'np.int32(B)'])}))",
    )


# Reductions -----------------------------------------------------------------------------------------------------------


def reduction_kernel(call: Call, reduction: Reduction) -> DeviceKernel:
    writer = ReductionWriter(call, reduction)
    lines = writer.lines()
    functions = "".join(f"{name} + " for name in constant_names(lines))
    definition = [f'{call.name} = RawKernel({functions}r"""', *lines, f'""", "{call.name}")']
    grid = f"({blocks(reduction)}, {reduction.chunks})"
    arguments = ", ".join([*writer.arguments, "np.int32(B)"])
    return DeviceKernel(call.name, definition, f"{call.name}({grid}, ({THREADS},), ({arguments}))")


def blocks(reduction: Reduction) -> str:
    """How many blocks the kept positions need."""
    kept, columns = elements(reduction.kept_shape), reduction.columns
    if isinstance(kept, int):
        return str(-(-kept // columns))
    return kept if columns == 1 else f"({kept} + {columns - 1}) // {columns}"


class ReductionWriter:
    """The text of one reduction.

    Threads of a block stand for `columns` kept positions k with `reducers` threads each. A round is a loop over the
    elements of a thread, and then over the threads of a position.
    """

    def __init__(self, call: Call, reduction: Reduction):
        self.call, self.reduction = call, reduction
        self.read, self.written = call.parameters()
        self.indices = Indices()
        self.e = Elements(call.body, {value: array.name for value, array in self.read.items()}, self.indices)
        self.e.taken |= {array.name for array in self.written} | {call.name, "reducer", "inside", "scratch", "c"}
        self.e.depth = 1
        self.stored: set[str] = set()  # outputs that are written already
        self.kept = named_index(self.indices, reduction.kept_shape, "k", "k")
        self.reduced = named_index(self.indices, reduction.reduced_shape, "r", "r")
        self.index = tuple(
            self.reduced.index[axis] if axis in reduction.axes else self.kept.index[axis]
            for axis in range(len(reduction.shape))
        )
        self.shared: dict[str, str] = {}  # dtype -> array

    @property
    def arguments(self) -> list[str]:
        names = [array.argument for array in (*self.read.values(), *self.written)]
        return [*names, *([self.call.scratch] if self.reduction.scratch else [])]

    def lines(self) -> list[str]:
        reduction, e = self.reduction, self.e
        for number, nodes in enumerate(reduction.rounds):
            self.round(number, nodes)
        self.last_elements()
        self.write_kept()
        self.write_totals()
        body = "\n".join(e.lines)
        before = [*self.kept.used_in(e.lines)]
        arrays = [f"__shared__ {C_TYPES[dtype]} {name}[{THREADS}];" for dtype, name in self.shared.items()]
        counter = [f"__device__ unsigned int {self.call.name}_done[{self.counters}];"] if "last_block(" in body else []
        head = ",\n    ".join(self.signature())
        return [
            *counter,
            f'extern "C" __global__ void {self.call.name}(\n    {head}) {{',
            *(INDENT + line for line in (*arrays, *self.threads(), *before)),
            *e.lines,
            "}",
        ]

    @property
    def counters(self) -> int:
        """Blocks of different kept positions count apart; of all together where there are totals."""
        return 1 if self.reduction.totals else int(blocks(self.reduction))

    def signature(self) -> list[str]:
        names = [f"const {C_TYPES[array.type.dtype]}* {array.name}" for array in self.read.values()]
        names += [f"{C_TYPES[array.type.dtype]}* {array.name}" for array in self.written]
        scratch = self.reduction.scratch
        return [*names, *([f"{C_TYPES[scratch.dtype]}* scratch"] if scratch else []), "int B"]

    def threads(self) -> list[str]:
        """Which kept position a thread works on, and which of its threads it is."""
        columns, reducers = self.reduction.columns, self.reduction.reducers
        if columns == 1:
            lines = ["const int reducer = threadIdx.x, k = blockIdx.x;"]
        elif self.reduction.along_last:
            lines = [
                f"const int reducer = threadIdx.x % {reducers}, k = blockIdx.x * {columns} + threadIdx.x / {reducers};"
            ]
        else:
            lines = [
                f"const int reducer = threadIdx.x / {columns}, k = blockIdx.x * {columns} + threadIdx.x % {columns};"
            ]
        return [*lines, f"const bool inside = k < {elements(self.reduction.kept_shape)};"]

    @property
    def stride(self) -> int:
        """How far apart the threads of one kept position are."""
        return 1 if self.reduction.along_last else self.reduction.columns

    # Rounds

    def round(self, number: int, nodes: Sequence[Node]) -> None:
        """Accumulates the reductions of a round, and writes elements that are known by then."""
        e = self.e
        accumulators = [self.accumulators(node) for node in nodes]
        with self.over_elements():
            for node, names in zip(nodes, accumulators, strict=True):
                self.accumulate(node, names)
            if number == len(self.reduction.rounds) - 1:
                self.store_elements(number)
        for node, names in zip(nodes, accumulators, strict=True):
            self.over_block(node, names)
        if self.reduction.chunks > 1:
            self.over_chunks(nodes, accumulators)
        for node, names in zip(nodes, accumulators, strict=True):
            e.reduced[node.result] = names[-1]

    def accumulators(self, node: Node) -> list[str]:
        """One variable; for argmax the maximum, and then where it is."""
        e, x = self.e, node.operands[0].type
        if node.op.name == "argmax":
            return [e.accumulator(x, least(x.dtype), "most"), e.accumulator(node.result.type, "0", "place")]
        first = least(x.dtype) if node.op.name == "reduce_max" else constant(0, x.dtype)
        return [e.accumulator(node.result.type, first, "most" if node.op.name == "reduce_max" else "sum")]

    @contextmanager
    def over_elements(self) -> Iterator[None]:
        """The loop over the elements of this thread."""
        e, reducers, chunks = self.e, self.reduction.reducers, self.reduction.chunks
        start = f"blockIdx.y * {reducers} + reducer" if chunks > 1 else "reducer"
        count = elements(self.reduction.reduced_shape)
        with e.block(f"if (inside) for (int r = {start}; r < {count}; r += {reducers * chunks})"):
            first = len(e.lines)
            yield
            e.lines[first:first] = [INDENT * e.depth + line for line in self.reduced.used_in(e.lines[first:])]

    def at(self, value: Value) -> str:
        """An element at the position of the loop."""
        return self.e.at(value, self.indices.reshaped(self.index, self.reduction.shape, value.type.shape))

    def accumulate(self, node: Node, names: Sequence[str]) -> None:
        e = self.e
        values = [self.at(operand) for operand in node.operands]
        if node.op.name == "argmax":
            most, place = names
            with e.block(f"if ({values[0]} > {most} || {values[0]} != {values[0]} && {most} == {most})"):
                e.write(f"{most} = {values[0]};")
                e.write(f"{place} = r;")
        elif node.op.name == "reduce_max":
            e.write(f"{names[0]} = max_of({names[0]}, {values[0]});")
        else:
            e.write(f"{names[0]} += {' * '.join(values)};")

    def over_block(self, node: Node, names: Sequence[str]) -> None:
        """Brings together what the threads of a kept position found."""
        dtype = node.operands[0].type.dtype
        where = f"reducer, {self.reduction.reducers}, {self.stride}"
        if node.op.name == "argmax":
            places = self.shared_array("i32")
            self.e.write(
                f"{names[1]} = block_argmax({names[0]}, {names[1]}, {self.shared_array(dtype)}, {places}, {where});"
            )
        else:
            function = "block_max" if node.op.name == "reduce_max" else "block_sum"
            self.e.write(f"{names[0]} = {function}({names[0]}, {self.shared_array(dtype)}, {where});")

    def shared_array(self, dtype: str) -> str:
        return self.shared.setdefault(dtype, f"shared_{dtype}")

    def over_chunks(self, nodes: Sequence[Node], accumulators: Sequence[Sequence[str]]) -> None:
        """The last block of a kept position takes the results of all blocks, in the order of the chunks."""
        e, chunks, kept = self.e, self.reduction.chunks, elements(self.reduction.kept_shape)
        count = len(nodes)
        with e.block("if (inside && reducer == 0)"):
            for number, (name,) in enumerate(accumulators):
                e.write(f"scratch[(blockIdx.y * {count} + {number}) * {kept} + k] = {name};")
        e.write(f"if (!last_block(&{self.call.name}_done[blockIdx.x], {chunks})) return;")
        for number, (node, (name,)) in enumerate(zip(nodes, accumulators, strict=True)):
            is_max = node.op.name == "reduce_max"
            dtype = node.result.type.dtype
            e.write(f"{name} = {least(dtype) if is_max else constant(0, dtype)};")
            part = f"scratch[(c * {count} + {number}) * {kept} + k]"
            with e.block(f"if (inside) for (int c = reducer; c < {chunks}; c += {self.reduction.reducers})"):
                e.write(f"{name} = max_of({name}, {part});" if is_max else f"{name} += {part};")
            self.over_block(node, [name])

    # Results

    def outputs(self, level: str) -> Iterator[tuple[str, Value, Array]]:
        for (name, value), array in zip(self.call.body.outputs.items(), self.written, strict=True):
            if self.reduction.levels[name] == level and name not in self.stored:
                yield name, value, array

    def store_elements(self, rounds: int) -> None:
        """Writes the elements, behind all that is read, if none of them needs more than so many rounds."""
        results = [*self.outputs(ELEMENT)]
        if any(self.reduction.after_of(value) > rounds for _, value, _ in results):
            return
        texts = [(array, self.at(value)) for _, value, array in results]
        place = self.indices.join(self.index, self.reduction.shape)
        for array, text in texts:
            self.e.write(f"{array.name}[{place}] = {text};")
        self.stored |= {name for name, _, _ in results}

    def last_elements(self) -> None:
        """A last loop for the elements, where some wait for all rounds."""
        if any(self.outputs(ELEMENT)):
            with self.over_elements():
                self.store_elements(len(self.reduction.rounds))
            self.e.write("__syncthreads();")

    def write_kept(self) -> None:
        results = [each for each in self.outputs(KEPT) if not self.late(each[1])]
        if results:
            with self.e.block("if (inside && reducer == 0)"):
                texts = [(array, self.at_kept(value)) for _, value, array in results]
                for array, text in texts:
                    self.e.write(f"{array.name}[k] = {text};")
        self.stored |= {name for name, _, _ in results}

    def late(self, value: Value) -> bool:
        return self.reduction.after_of(value) > len(self.reduction.rounds)

    def at_kept(self, value: Value) -> str:
        index = self.indices.reshaped(self.kept.index, self.reduction.kept_shape, value.type.shape)
        return self.e.at(value, index)

    # Totals

    def write_totals(self) -> None:
        """Adds up what is kept, block by block; the last block adds up the blocks and computes the scalars."""
        e, totals = self.e, self.reduction.totals
        scalars = [*self.outputs(SCALAR)]
        if totals:
            names = [e.accumulator(node.result.type, constant(0, node.result.type.dtype), "total") for node in totals]
            with e.block("if (inside && reducer == 0)"):
                for node, name in zip(totals, names, strict=True):
                    e.write(f"{name} = {' * '.join(self.at_kept(operand) for operand in node.operands)};")
            self.add_blocks(names, totals[0].result.type.dtype)
            e.reduced.update({node.result: name for node, name in zip(totals, names, strict=True)})
        if scalars:
            alone = "threadIdx.x == 0" if totals else "blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0"
            if self.reduction.chunks > 1:
                alone = "blockIdx.x == 0 && threadIdx.x == 0"
            with e.block(f"if ({alone})"):
                for _, value, array in scalars:
                    e.write(f"{array.name}[0] = {e.at(value, (0,) * value.type.rank)};")

    def add_blocks(self, names: Sequence[str], dtype: str) -> None:
        e, shared = self.e, self.shared_array(dtype)
        whole = f"{shared}, threadIdx.x, {THREADS}, 1"
        for name in names:
            e.write(f"{name} = block_sum({name}, {whole});")
        with e.block("if (threadIdx.x == 0)"):
            for number, name in enumerate(names):
                e.write(f"scratch[{number} * gridDim.x + blockIdx.x] = {name};")
        e.write(f"if (!last_block({self.call.name}_done, gridDim.x)) return;")
        for number, name in enumerate(names):
            e.write(f"{name} = {constant(0, dtype)};")
            with e.block(f"for (int c = threadIdx.x; c < gridDim.x; c += {THREADS})"):
                e.write(f"{name} += scratch[{number} * gridDim.x + c];")
            e.write(f"{name} = block_sum({name}, {whole});")
