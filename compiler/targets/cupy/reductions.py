"""Reductions: regions that combine elements along some axes, as RawKernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compiler.ir.graph import Node, Value
from compiler.ir.types import TensorType
from compiler.targets.c_text.elements import INDENT, Elements, first_value
from compiler.targets.c_text.indices import Coordinate, Indices, elements, named_index
from compiler.targets.c_text.regions import ELEMENT, KEPT, SCALAR
from compiler.targets.c_text.scalars import C_TYPES, constant, least
from compiler.targets.cupy.calls import ArrayParameter, DeviceKernel, Launch, constant_names, raw_kernel
from compiler.targets.cupy.regions import THREADS, DeviceReduction


def reduction_kernel(launch: Launch, reduction: DeviceReduction) -> DeviceKernel:
    writer = ReductionWriter(launch, reduction)
    lines = writer.lines()
    grid = f"({blocks(reduction)}, {reduction.chunks})"
    return raw_kernel(launch, constant_names(lines), lines, grid, f"({THREADS},)", writer.arguments)


def share(count: Coordinate, among: int) -> Coordinate:
    """The most numbers that each of several threads adds; an expression if it depends on the batch."""
    return -(-count // among) if isinstance(count, int) else count


def blocks(reduction: DeviceReduction) -> str:
    """The number of blocks for the kept positions, in Python."""
    kept, columns = elements(reduction.kept_shape), reduction.columns
    if isinstance(kept, int):
        return str(-(-kept // columns))
    return kept if columns == 1 else f"({kept} + {columns - 1}) // {columns}"


class ReductionWriter:
    """The text of one reduction.

    A block works on `columns` kept positions k with `reducers` threads each. A round is a loop over the elements of a
    thread, followed by a reduction over the threads of a position.
    """

    def __init__(self, launch: Launch, reduction: DeviceReduction):
        self.launch, self.reduction = launch, reduction
        self.read, self.written = launch.parameters()
        self.indices = Indices()
        self.e = Elements(launch.body, {value: array.name for value, array in self.read.items()}, self.indices)
        self.e.used |= {array.name for array in self.written} | {launch.name, "reducer", "inside", "scratch", "c"}
        self.e.depth = 1
        self.stored: set[str] = set()  # names of outputs already written
        self.kept = named_index(self.indices, reduction.kept_shape, "k", "k")
        self.reduced = named_index(self.indices, reduction.reduced_shape, "r", "r")
        self.index = tuple(
            self.reduced.index[axis] if axis in reduction.axes else self.kept.index[axis]
            for axis in range(len(reduction.shape))
        )
        self.shared: dict[str, str] = {}  # the name of an array in shared memory -> its dtype

    @property
    def arguments(self) -> list[str]:
        names = [array.argument for array in (*self.read.values(), *self.written)]
        return [*names, *([self.launch.scratch] if self.reduction.scratch else [])]

    def lines(self) -> list[str]:
        reduction, e = self.reduction, self.e
        for number, nodes in enumerate(reduction.rounds):
            self.round(number, nodes)
        self.last_elements()
        self.write_kept()
        self.write_totals()
        before = [*self.kept.used_in(e.lines)]
        arrays = [f"__shared__ {C_TYPES[dtype]} {name}[{THREADS}];" for name, dtype in self.shared.items()]
        counts = any("last_block(" in line for line in e.lines)
        head = ",\n    ".join(self.signature())
        return [
            *([f"__device__ unsigned int {self.launch.name}_done[{self.counters}];"] if counts else []),
            f'extern "C" __global__ void {self.launch.name}(\n    {head}) {{',
            *(INDENT + line for line in (*arrays, *self.threads(), *before)),
            *e.lines,
            "}",
        ]

    @property
    def counters(self) -> int:
        """Blocks count separately for each kept position, or together if there are totals."""
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
            reducer, k = "threadIdx.x", "blockIdx.x"
        elif self.reduction.along_last:
            reducer, k = f"threadIdx.x % {reducers}", f"blockIdx.x * {columns} + threadIdx.x / {reducers}"
        else:
            reducer, k = f"threadIdx.x / {columns}", f"blockIdx.x * {columns} + threadIdx.x % {columns}"
        inside = f"const bool inside = k < {elements(self.reduction.kept_shape)};"
        return [f"const int reducer = {reducer}, k = {k};", inside]

    @property
    def stride(self) -> int:
        """How far apart the threads of one kept position are."""
        return 1 if self.reduction.along_last else self.reduction.columns

    # Rounds

    def round(self, number: int, nodes: Sequence[Node]) -> None:
        """Accumulates the reductions of a round, and writes the elements that are known by then."""
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
        """One variable; for argmax the maximum and its place."""
        e, x = self.e, node.operands[0].type
        if node.op.reduces == "argmax":
            return [e.accumulator(x, least(x.dtype), "most"), e.accumulator(node.result.type, "0", "place")]
        if node.op.reduces == "max":
            return [e.accumulator(node.result.type, first_value(node), "most")]
        reduction = self.reduction
        count = share(elements(reduction.reduced_shape), reduction.reducers * reduction.chunks)
        return [e.sum_of(node.result.type, count)]

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
        if node.op.reduces == "argmax":
            most, place = names
            with e.block(f"if ({values[0]} > {most} || {values[0]} != {values[0]} && {most} == {most})"):
                e.write(f"{most} = {values[0]};")
                e.write(f"{place} = r;")
        else:
            e.combine(node, names[0], " * ".join(values))

    def over_block(self, node: Node, names: Sequence[str]) -> None:
        """Combines the results of the threads of a kept position."""
        dtype = node.operands[0].type.dtype
        where = f"reducer, {self.reduction.reducers}, {self.stride}"
        if node.op.reduces == "argmax":
            most, place = names
            places = self.shared_array("i32", "shared_places")
            self.e.write(f"{place} = block_argmax({most}, {place}, {self.shared_array(dtype)}, {places}, {where});")
        else:
            function = "block_max" if node.op.reduces == "max" else "block_sum"
            self.e.write(f"{names[0]} = {function}({names[0]}, {self.shared_array(dtype)}, {where});")

    def shared_array(self, dtype: str, name: str = "") -> str:
        name = name or f"shared_{dtype}"
        self.shared[name] = dtype
        return name

    def over_chunks(self, nodes: Sequence[Node], accumulators: Sequence[Sequence[str]]) -> None:
        """The last block of a kept position combines the results of all blocks, in the order of the chunks."""
        e, chunks, kept = self.e, self.reduction.chunks, elements(self.reduction.kept_shape)
        count = len(nodes)
        with e.block("if (inside && reducer == 0)"):
            for number, (name,) in enumerate(accumulators):
                e.write(f"scratch[(blockIdx.y * {count} + {number}) * {kept} + k] = {name};")
        e.write(f"if (!last_block(&{self.launch.name}_done[blockIdx.x], {chunks})) return;")
        for number, (node, (name,)) in enumerate(zip(nodes, accumulators, strict=True)):
            e.write(f"{name} = {first_value(node)};")
            if node.op.reduces == "sum":
                e.keep_digits(name, node.result.type, share(chunks, self.reduction.reducers))
            part = f"scratch[(c * {count} + {number}) * {kept} + k]"
            with e.block(f"if (inside) for (int c = reducer; c < {chunks}; c += {self.reduction.reducers})"):
                e.combine(node, name, part)
            self.over_block(node, [name])

    # Results

    def outputs(self, level: str) -> Iterator[tuple[str, Value, ArrayParameter]]:
        for (name, value), array in zip(self.launch.body.outputs.items(), self.written, strict=True):
            if self.reduction.levels[name] == level and name not in self.stored:
                yield name, value, array

    def store_elements(self, rounds: int) -> None:
        """Writes the elements, after all reads, if none of them needs more than this many rounds."""
        results = [*self.outputs(ELEMENT)]
        if any(self.reduction.after_of(value) > rounds for _, value, _ in results):
            return
        texts = [(array, self.at(value)) for _, value, array in results]
        place = self.indices.join(self.index, self.reduction.shape)
        for array, text in texts:
            self.e.write(f"{array.name}[{place}] = {text};")
        self.stored |= {name for name, _, _ in results}

    def last_elements(self) -> None:
        """A last loop for the elements, if some depend on all rounds."""
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
        """Adds over the kept positions of each block; the last block adds the blocks and computes the scalars."""
        e, totals = self.e, self.reduction.totals
        scalars = [*self.outputs(SCALAR)]
        if totals:
            names = [e.accumulator(node.result.type, constant(0, node.result.type.dtype), "total") for node in totals]
            with e.block("if (inside && reducer == 0)"):
                for node, name in zip(totals, names, strict=True):
                    e.write(f"{name} = {' * '.join(self.at_kept(operand) for operand in node.operands)};")
            self.add_blocks(names, totals[0].result.type)
            e.reduced.update({node.result: name for node, name in zip(totals, names, strict=True)})
        if scalars:
            alone = "threadIdx.x == 0" if totals else "blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0"
            if self.reduction.chunks > 1:
                alone = "blockIdx.x == 0 && threadIdx.x == 0"
            with e.block(f"if ({alone})"):
                texts = [(array, e.at(value, (0,) * value.type.rank)) for _, value, array in scalars]
                for array, text in texts:
                    e.write(f"{array.name}[0] = {text};")

    def add_blocks(self, names: Sequence[str], type: TensorType) -> None:
        e, shared = self.e, self.shared_array(type.dtype)
        whole = f"{shared}, threadIdx.x, {THREADS}, 1"
        for name in names:
            e.write(f"{name} = block_sum({name}, {whole});")
        with e.block("if (threadIdx.x == 0)"):
            for number, name in enumerate(names):
                e.write(f"scratch[{number} * gridDim.x + blockIdx.x] = {name};")
        e.write(f"if (!last_block({self.launch.name}_done, gridDim.x)) return;")
        for number, name in enumerate(names):
            e.write(f"{name} = {constant(0, type.dtype)};")
            e.keep_digits(name, type, share(elements(self.reduction.kept_shape), self.reduction.columns * THREADS))
            with e.block(f"for (int c = threadIdx.x; c < gridDim.x; c += {THREADS})"):
                e.add(name, f"scratch[{number} * gridDim.x + c]")
            e.write(f"{name} = block_sum({name}, {whole});")
