"""Whether and how a region runs as one. The passes that form regions and the code that writes them use this.

A map computes every result element by element. A reduction goes over a shape S: its results depend on all elements
along some axes of S, for each position along the others, the kept ones.

    operands ──▶ elements of S ──▶ sum, maximum … over the axes ──▶ kept ──▶ elements that need these ──▶ …
                                                                    kept ──▶ sums over all of them ──▶ scalars

Softmax with cross entropy is such a region: S = [B, 10], the classes are reduced, the examples are kept, and the mean
loss is a scalar. The sums of batch normalization are another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from compiler.ir.graph import Graph, Node, Value, readers_of
from compiler.ir.op import CONVOLUTION, ELEMENTWISE
from compiler.ir.types import TYPICAL_BATCH, Dim, Shape, extent
from compiler.targets.c_text.indices import Coordinate, ElementIndex, Indices, plus, size_of, squeezed, times

ELEMENT, KEPT, SCALAR = "element", "kept", "scalar"


@dataclass(frozen=True)
class Reduction:
    """A region with reductions: rounds, each of which may need earlier ones, then totals over the kept positions."""

    shape: Shape
    axes: tuple[int, ...]
    rounds: Sequence[Sequence[Node]]
    totals: Sequence[Node]
    after: Mapping[Node, int]  # how many rounds a node needs; with totals, all of them and one more
    levels: Mapping[str, str]  # of the outputs, by name
    outputs: Mapping[str, Value]

    @property
    def kept_shape(self) -> Shape:
        return tuple(1 if axis in self.axes else dim for axis, dim in enumerate(self.shape))

    @property
    def reduced_shape(self) -> Shape:
        return tuple(dim if axis in self.axes else 1 for axis, dim in enumerate(self.shape))

    @property
    def along_last(self) -> bool:
        """Whether elements adjacent in memory are reduced rather than kept."""
        return max(axis for axis, dim in enumerate(self.shape) if dim != 1) in self.axes

    @property
    def waiting(self) -> bool:
        """Whether elements depend on reductions, so that they have to be visited again."""
        return any(self.levels[name] == ELEMENT and self.after_of(value) for name, value in self.outputs.items())

    def after_of(self, value: Value) -> int:
        return self.after.get(value.node, 0) if value.node else 0


AnyReduction = TypeVar("AnyReduction", bound=Reduction)


def reduces(node: Node) -> bool:
    """Whether a node combines several elements."""
    return any(node.operands[0].type.shape[axis] != 1 for axis in node.reduced_axes)


def swaps_last_axes(node: Node) -> bool:
    """Whether a node transposes matrices, alone or in a stack: products accept them in both orders."""
    rank = node.results[0].type.rank
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    return node.op.name == "transpose" and rank >= 2 and node.attributes["permutation"] == swapped


def reduction_of(
    nodes: Sequence[Node], outputs: Mapping[str, Value], kind: type[AnyReduction] = Reduction
) -> AnyReduction | None:
    """How nodes, at least one of which reduces, run as one; None if they cannot. `kind` is of the target.

    All but the totals must reduce the same axes of one shape, apart from axes of one element.
    """
    found = [node for node in nodes if reduces(node)]
    if not found:
        return None
    main = max(found, key=lambda node: typical(node.operands[0].type.shape))
    shape, axes = main.operands[0].type.shape, main.reduced_axes
    if not extent(shape).factor:
        return None
    kept = squeezed(dim for axis, dim in enumerate(shape) if axis not in axes)
    totals = [node for node in found if is_total(node, kept)]
    rest = [node for node in found if node not in totals]
    dtypes = {node.result.type.dtype for node in totals}
    if len(dtypes) > 1 or any(squeezed_axes(node) != squeezed_axes(main) for node in rest):
        return None
    after = rounds_needed(nodes, rest, totals)
    last = max(after[node] for node in rest)
    if any(after[node] > last for node in rest) or any(after[node] > last + 1 for node in totals):
        return None
    levels: dict[str, str] = {}
    for name, value in outputs.items():
        level = level_of(squeezed(value.type.shape), squeezed(shape), kept)
        needs = after.get(value.node, 0) if value.node else 0
        if level is None or (needs > last and level != SCALAR):
            return None
        levels[name] = level
    rounds = [[node for node in rest if after[node] == number] for number in range(1, last + 1)]
    return kind(shape, axes, rounds, totals, after, levels, outputs)


def read_at_own_place(body: Graph) -> set[Value]:
    """The values whose elements are read only where the element at the same place is computed.

    A result of the same type may be written over such an input: the input is not needed any longer by then.
    """
    reduction = reduction_of(body.nodes, body.outputs)
    readers = readers_of(body)
    alone: set[Value] = set()

    def in_place(value: Value, reader: Node | None) -> bool:
        if reader is None:
            return value.node is not None
        shape = squeezed(value.type.shape)
        if reduction and reader in reduction.after and reduces(reader):
            return shape == squeezed(reduction.shape) and reader not in reduction.totals
        if is_stored_in_parts(reader, readers):
            return True
        if ELEMENTWISE not in reader.op.traits or reader.result not in alone:
            return False
        return squeezed(reader.result.type.shape) == shape or is_stretched_kept(value, reader, reduction)

    for value in (*(result for node in reversed(body.nodes) for result in node.results), *body.inputs):
        if all(in_place(value, reader) for reader in readers.get(value, ())):
            alone.add(value)
    return alone


def is_convolution_with_epilogue(body: Graph) -> bool:
    """Whether nodes are a convolution or an adjoint, and functions of single elements of its result."""
    convolutions = [node for node in body.nodes if CONVOLUTION in node.op.traits]
    if len(convolutions) != 1:
        return False
    node = convolutions[0]
    shapes = {squeezed(value.type.shape) for value in body.outputs.values()}
    given = not any(value.node in set(body.nodes) for value in node.operands)
    if not given or any(map(reduces, body.nodes)) or shapes != {squeezed(node.result.type.shape)}:
        return False
    return len(body.nodes) == 1 or (node.op.name != "conv2d_filter_grad" and node.result in read_at_own_place(body))


def loop_shape(value: Value, readers: Mapping[Value, Sequence[Node | None]]) -> Shape:
    """The shape whose elements a map goes over to compute a result."""
    if value.node is not None and is_stored_in_parts(value.node, readers):
        value = value.node.operands[0]
    return squeezed(value.type.shape)


def is_stored_in_parts(node: Node, readers: Mapping[Value, Sequence[Node | None]]) -> bool:
    """Whether a node joins operands of one type and is only read outside: each part is then written in its place."""
    same = node.op.name == "concat" and len({value.type for value in node.operands}) == 1
    return same and all(reader is None for reader in readers[node.result])


def parts_of(
    value: Value, shape: Shape
) -> Iterator[tuple[Value, Callable[[Indices, ElementIndex, Coordinate], Coordinate]]]:
    """The elements of a result that a thread writes, and where: one, or one of each operand that it joins."""
    if squeezed(value.type.shape) == shape:
        yield value, lambda indices, index, position: position
        return
    assert value.node is not None
    axis, size = value.node.attributes["axis"], value.node.operands[0].type.shape[value.node.attributes["axis"]]

    def place(number: int) -> Callable[[Indices, ElementIndex, Coordinate], Coordinate]:
        def at(indices: Indices, index: ElementIndex, position: Coordinate) -> Coordinate:
            inner = list(indices.reshaped(index, shape, operands[number].type.shape))
            inner[axis] = plus(inner[axis], times(number, size_of(size)))
            return indices.join(tuple(inner), value.type.shape)

        return at

    operands = value.node.operands
    for number, operand in enumerate(operands):
        yield operand, place(number)


def is_stretched_kept(value: Value, reader: Node, reduction: Reduction | None) -> bool:
    """Whether a node over the elements of a reduction reads a kept value, each element at its own kept position."""
    if reduction is None or reader.result.type.shape != reduction.shape:
        return False
    shape = (1,) * (len(reduction.shape) - value.type.rank) + value.type.shape
    return squeezed(shape) == squeezed(reduction.kept_shape) and all(shape[axis] == 1 for axis in reduction.axes)


def is_total(node: Node, kept: Shape) -> bool:
    """Whether a node adds over all kept positions."""
    if not kept or node.op.reduces != "sum":
        return False
    shape = node.operands[0].type.shape
    return squeezed(shape) == kept and all(shape[axis] == 1 or axis in node.reduced_axes for axis in range(len(shape)))


def rounds_needed(nodes: Sequence[Node], rest: Sequence[Node], totals: Sequence[Node]) -> dict[Node, int]:
    """The number of rounds before each node, its own included if it is a reduction; totals come after all rounds."""
    after: dict[Node, int] = {}
    reducing, adding = set(rest), set(totals)
    for node in nodes:
        before = max((after.get(value.node, 0) for value in node.operands if value.node), default=0)
        after[node] = before + (node in reducing)
    last = max(after[node] for node in rest)
    late: set[Node] = set()
    for node in nodes:
        if node in adding or any(value.node in late for value in node.operands):
            again = node in adding and any(value.node in late for value in node.operands)
            late.add(node)
            after[node] = last + 1 + again
    return after


def level_of(shape: Shape, full: Shape, kept: Shape) -> str | None:
    if shape == kept:
        return KEPT
    return ELEMENT if shape == full else SCALAR if not shape else None


def squeezed_axes(node: Node) -> tuple[Shape, tuple[int, ...]]:
    """Shape and reduced axes without the axes of one element."""
    shape, axes = node.operands[0].type.shape, node.reduced_axes
    left = [axis for axis, dim in enumerate(shape) if dim != 1]
    return squeezed(shape), tuple(left.index(axis) for axis in axes if axis in left)


def typical(shape: Iterable[Dim]) -> int:
    """The number of elements of a shape at a typical batch."""
    return extent(shape).at(TYPICAL_BATCH)
