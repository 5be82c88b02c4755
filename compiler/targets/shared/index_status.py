"""index-status: a GPU cannot stop at a bad index, so a graph also returns whether one was outside its table.

    check_index(i, size=n) = i    and an output, an i64: 0, or what is needed to name the first index outside

Kernels that read or write rows of a table use the nearest row for such an index. In the body of a scan, the number is
one of the per-step outputs. The runtime reads the numbers with the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.builder import Builder
from compiler.ir.examples import indices_per_example
from compiler.ir.graph import Graph, Node, Value
from compiler.ir.op import LOOP
from compiler.ir.types import Batch, Dim
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.rewriting import rebuild
from compiler.planning.check_names import name_of
from runtime.program import LAST_PLACE, LEAST_INDEX, PLACES

Codes = dict[str, list[Value]]  # by the name of the output


def note_indices(graph: Graph) -> Graph:
    """See the file's docstring."""
    if not any(node.op.name == "check_index" for node in graph.walk()):
        return graph
    result, codes = noted(remove_dead_code(graph))  # an index that no result depends on is not checked
    builder = Builder(result)
    for name, values in codes.items():
        first, *others = values
        for other in others:
            first = builder.max(first, other)
        result.outputs[name] = first
    return result


def noted(graph: Graph) -> tuple[Graph, Codes]:
    """The graph without checks, and the numbers that it computes instead."""
    codes: Codes = {}

    def rule(builder: Builder, node: Node, operands: list[Value]) -> Sequence[Value] | None:
        if node.op.name == "check_index":
            if 0 not in node.result.type.shape:
                code = code_of(builder, operands[0], node.attributes["size"], indices_per_example(node.operands[0]))
                codes.setdefault(name_of(node), []).append(code)
            return operands
        if LOOP in node.op.traits and any(each.op.name == "check_index" for each in node.body.walk()):
            return noted_scan(builder, node, operands, codes)
        return None

    return rebuild(graph, rule), codes


def noted_scan(builder: Builder, node: Node, operands: list[Value], codes: Codes) -> list[Value]:
    """The results of the scan; the numbers of all steps are combined after it."""
    body, inner = noted(node.body)
    numbers = [(name, value) for name, values in inner.items() for value in values]
    count = len(body.outputs)
    body.outputs |= {f"check{i}": value for i, (_, value) in enumerate(numbers)}
    results = builder.emit_like(node, operands, body=body)
    for (name, _), stack in zip(numbers, results[count:], strict=True):
        if stack.type.shape != (0,):
            codes.setdefault(name, []).append(builder.reduce_max(stack, axes=(0,)))
    return results[:count]


def code_of(builder: Builder, indices: Value, size: int, each: int) -> Value:
    """The largest, over indices outside of 0 … size - 1, of a number for place and index; 0 if there is none.

    The place is counted from the end, so that the first is the largest. It is 0 if indices are not in the order of the
    examples.
    """
    shape = indices.type.shape
    given = builder.cast(indices, dtype="i64")
    outside = builder.select(builder.lt(given, 0), True, builder.le(size, given))
    shown = given
    if indices.type.dtype == "i64":
        shown = builder.min(builder.max(given, LEAST_INDEX), LEAST_INDEX + PLACES - 1)
    code = builder.sub(shown, LEAST_INDEX)
    if each:
        places = builder.reshape(builder.iota(size=elements(shape)), shape=shape)
        counted = builder.sub(LAST_PLACE, builder.cast(places, dtype="i64"))
        code = builder.add(builder.mul(counted, PLACES), code)
    else:
        code = builder.add(code, LAST_PLACE * PLACES)
    found = builder.select(outside, code, 0)
    return builder.reduce_max(found, axes=tuple(range(len(shape)))) if shape else found


def elements(shape: Sequence[Dim]) -> Dim:
    """The size of an axis for all elements of a shape whose first axis is the batch."""
    first, *others = shape
    count = 1
    for dim in others:
        assert isinstance(dim, int)
        count *= dim
    assert isinstance(first, Batch)
    return Batch(first.factor * count)
