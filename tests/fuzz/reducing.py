"""Reduces a program while it still fails in the same way: graphs by nodes, outputs and sizes, text by lines.

Every attempt changes a copy, which is kept if the outcome has the same signature. The search has a time limit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from compiler.diagnostics import UserError
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.printer import print_graph
from compiler.ir.types import TypeRuleError
from compiler.passes.dead_code import remove_dead_code
from tests.programs import read_graph

Change = Callable[[Graph], object]
T = TypeVar("T")
SECONDS = 60.0  # time limit of a search


def smallest(found: T, candidates: Callable[[T], Iterable[T]], fails: Callable[[T], bool], seconds: float) -> T:
    """Moves on to the first candidate that fails, again and again, until none does or the time is over."""
    end, smaller = time.monotonic() + seconds, True
    while smaller and time.monotonic() < end:
        smaller = False
        for candidate in candidates(found):
            if time.monotonic() > end:
                break
            if fails(candidate):
                found, smaller = candidate, True
                break
    return found


def reduce_graph(graph: Graph, fails: Callable[[Graph], bool], seconds: float = SECONDS) -> Graph:
    """The smallest graph that was found to fail."""
    return smallest(graph, smaller_graphs, fails, seconds)


def smaller_graphs(graph: Graph) -> Iterator[Graph]:
    for change in changes(graph):
        candidate = changed(graph, change)
        if candidate is not None and weight(candidate) < weight(graph):
            yield candidate


def weight(graph: Graph) -> tuple[int, int, int]:
    """What is minimized: nodes, including those of bodies, then outputs and inputs, then the length of the text."""
    return len(list(graph.walk())), len(graph.outputs) + len(graph.inputs), len(print_graph(graph))


def changed(graph: Graph, change: Change) -> Graph | None:
    """A changed copy without dead code, or None if the rules of the IR do not allow the change."""
    copy = read_graph(print_graph(graph))
    try:
        replaced = change(copy)
        copy = replaced if isinstance(replaced, Graph) else copy
        copy = remove_dead_code(copy)
        used = {operand for node in copy.nodes for operand in node.operands} | set(copy.outputs.values())
        copy.inputs = [value for value in copy.inputs if value in used]
        return read_graph(print_graph(copy))
    except (TypeRuleError, UserError, ValueError, KeyError, IndexError, AttributeError):
        return None


def changes(graph: Graph) -> Iterator[Change]:
    """Attempts, those that remove most first."""
    names = list(graph.outputs)
    for name in names if len(names) > 1 else ():
        yield lambda copy, name=name: copy.outputs.pop(name)
    count = len(list(graph.walk()))
    for index in reversed(range(count)):
        yield lambda copy, index=index: by_input(copy, index)
        yield from (lambda copy, index=index, at=at: by_operand(copy, index, at) for at in range(4))
    for index in range(count):
        yield lambda copy, index=index: to_output(copy, index)
    sizes = {int(n) for n in re.findall(r"\d+", " ".join(re.findall(r"\[[^\[\]]*\]", print_graph(graph))))}
    for size in sorted(sizes, reverse=True):
        yield from (lambda copy, size=size, new=new: resized(copy, size, new) for new in {1, 2, size - 1} if new < size)


def owner_of(graph: Graph, index: int) -> tuple[Graph, Node]:
    """The graph or body that contains a node, and the node, given by its number in `walk`."""
    node = list(graph.walk())[index]
    bodies = [graph, *(each.body for each in graph.walk() if "body" in each.attributes)]
    return next(each for each in bodies if node in each.nodes), node


def by_input(graph: Graph, index: int) -> None:
    """Replaces a node's results by new inputs."""
    owner, node = owner_of(graph, index)
    if owner is not graph:
        return
    for result in node.results:
        replace(graph, result, new := Value(result.type, f"n{index}_{len(graph.inputs)}", "input"))
        graph.inputs.append(new)
    graph.nodes.remove(node)


def by_operand(graph: Graph, index: int, at: int) -> None:
    """Replaces a node's first result by an operand of the same type."""
    owner, node = owner_of(graph, index)
    operand = node.operands[at]
    if operand.type == node.results[0].type and not isinstance(operand, Literal):
        replace(owner, node.results[0], operand)


def to_output(graph: Graph, index: int) -> None:
    """Replaces the last output by a node's first result, so that the nodes of that output may become dead."""
    owner, node = owner_of(graph, index)
    if owner is graph:
        graph.outputs[list(graph.outputs)[-1]] = node.results[0]


def replace(graph: Graph, old: Value, new: Value) -> None:
    for node in graph.nodes:
        node.operands = [new if operand is old else operand for operand in node.operands]
    graph.outputs = {name: new if value is old else value for name, value in graph.outputs.items()}


def resized(graph: Graph, size: int, new: int) -> Graph:
    """Replaces a size in all types and attributes."""
    text = print_graph(graph)

    def smaller(match: re.Match[str]) -> str:
        return re.sub(rf"\b{size}\b", str(new), match[0])

    return read_graph(re.sub(r"\[[^\[\]\n]*\]", smaller, text))


def reduce_text(text: str, fails: Callable[[str], bool], seconds: float = SECONDS) -> str:
    """The shortest program in the language that was found to fail."""

    def still_fails(candidate: str) -> bool:
        with suppress(UserError):
            return fails(candidate)
        return False

    return smallest(text, shorter_texts, still_fails, seconds)


def shorter_texts(text: str) -> Iterator[str]:
    """Texts without a declaration, some lines, a part of a pipeline or an argument, or with a smaller number."""
    blocks = text.split("\n\n")
    if len(blocks) > 1:
        yield from ("\n\n".join(blocks[:i] + blocks[i + 1 :]) for i in range(len(blocks)))
    lines = text.split("\n")
    for count in (8, 4, 2, 1):
        yield from ("\n".join(lines[:i] + lines[i + count :]) for i in range(len(lines) - count + 1))
    for pattern, new in ((r" \|> [\w.]+(?:\([^|\n]*\))?", ""), (r", \w+=[^,()\n]+", ""), (r"(?<=\()\w+=[^,()\n]+", "")):
        yield from (text[: m.start()] + new + text[m.end() :] for m in re.finditer(pattern, text))
    for match in re.finditer(r"\b[2-9]\b", text):
        yield from (text[: match.start()] + str(new) + text[match.end() :] for new in range(1, int(match[0])))
