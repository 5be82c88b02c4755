"""Maps: regions whose results are computed element by element, as ElementwiseKernels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from compiler.ir.graph import Graph, Value, readers_of
from compiler.ir.types import Shape
from compiler.targets.c_text.elements import INDENT, Elements
from compiler.targets.c_text.indices import Coordinate, Indices, elements, named_index, plus
from compiler.targets.c_text.regions import loop_shape, parts_of
from compiler.targets.c_text.scalars import CUPY_TYPES
from compiler.targets.cupy.calls import ArrayParameter, DeviceKernel, Launch, constant_names


def map_kernel(launch: Launch) -> DeviceKernel:
    """One loop over the elements of the results; results of different shapes one after another."""
    read, written = launch.parameters()
    by_shape: dict[Shape, list[tuple[Value, ArrayParameter]]] = {}
    readers = readers_of(launch.body)
    for value, array in zip(launch.body.outputs.values(), written, strict=True):
        by_shape.setdefault(loop_shape(value, readers), []).append((value, array))
    lines: list[str] = []
    start: Coordinate = 0
    for number, (shape, results) in enumerate(by_shape.items()):
        end = plus(start, elements(shape))
        if len(by_shape) == 1:
            lines += statements_for(launch.body, read, shape, results, "i")
        else:
            head = "else" if number == len(by_shape) - 1 else f"if (i < {end})"
            moved = [f"const int k = (int)(i - {in_brackets(start)});"] if number else ["const int k = (int)i;"]
            inner = moved + statements_for(launch.body, read, shape, results, "k")
            lines += [
                f"{'else ' if 0 < number < len(by_shape) - 1 else ''}{head} {{",
                *(INDENT + line for line in inner),
                "}",
            ]
        start = end
    return elementwise(launch.name, [*read.values()], written, lines, start)


def in_brackets(position: Coordinate) -> str:
    return str(position) if isinstance(position, int) else f"({position})"


def statements_for(
    body: Graph,
    read: Mapping[Value, ArrayParameter],
    shape: Shape,
    results: Sequence[tuple[Value, ArrayParameter]],
    position: str,
) -> list[str]:
    """Statements that compute results at a position in a shape; all reads come before the writes."""
    indices = Indices()
    e = Elements(body, {value: array.name for value, array in read.items()}, indices)
    e.used |= {array.name for _, array in results}
    named = named_index(indices, shape, position)
    stores = []
    for value, array in results:
        for part, place in parts_of(value, shape):
            text = e.at(part, indices.reshaped(named.index, shape, part.type.shape))
            stores.append(f"{array.name}[{place(indices, named.index, position)}] = {text};")
    return [*named.used_in([*e.lines, *stores]), *e.lines, *stores]


def elementwise(
    name: str, read: Sequence[ArrayParameter], written: Sequence[ArrayParameter], lines: Sequence[str], size: Coordinate
) -> DeviceKernel:
    """An ElementwiseKernel with raw parameters only: the text itself selects the elements."""
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
