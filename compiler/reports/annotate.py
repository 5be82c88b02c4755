"""The output of `annotate`: the model's text, and below each line what it was compiled to in one graph.

    shapes    the results of the layers and functions called there
    forward   its kernels with their bytes and times; likewise `backward`, and `update` for the optimizer. A region that
              belongs to several lines is listed at its first line, and the others refer to it
    passes    the passes that changed something, and what they changed
    code      its lines in the generated source (`emit --stage source`)

Everything inside a library layer belongs to the line that calls it.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from compiler.driver import Compilation
from compiler.elaborate.values import CallRecord, tensors_in
from compiler.ir.graph import VARIABLES, Graph, Node, Origin
from compiler.ir.op import REGION
from compiler.language.syntax import Program
from compiler.passes.pipeline import Pass, labels, run_pass
from compiler.reports.profile import KernelRow, measure_kernels, rows_of, with_clock
from compiler.targets.target import find_target
from runtime.datasets.dataset import Dataset

WIDTH = 120
LABEL, COLUMN = 6, 16  # columns of the labels and of their texts, below a line of the model
PASS_WIDTH = 24  # of a pass name
MOST_OPS = 5  # named for each pass
COMMENTS = ("# ", "// ")
DIRECTIONS = ("forward", "backward", "update")


class ModelLine(NamedTuple):
    """A line of one of the user's files."""

    file: str
    number: int


@dataclass(frozen=True)
class Annotations:
    """The result of compiling a program, by line."""

    shapes: Mapping[ModelLine, list[str]]
    kernels: Mapping[tuple[ModelLine | None, str], list[KernelRow]]  # by line and direction; None: no line
    regions: Mapping[ModelLine, list[str]]  # kernels listed at another line
    passes: Mapping[ModelLine, list[str]]
    code: Mapping[ModelLine, list[int]]
    timed: bool

    def lines(self) -> set[ModelLine]:
        shown = [line for line, _ in self.kernels if line]
        return {*self.shapes, *shown, *self.regions, *self.passes, *self.code}


def annotate(
    compiled: Compilation, graph: str, passes: Sequence[Pass], dataset: Dataset | None, steps: int | None
) -> Annotations:
    """Gathers everything; runs this many steps to measure times, or none for a report that never varies."""
    if steps:
        rows, _ = measure_kernels(compiled, graph, dataset, steps)
    else:
        rows = rows_of(with_clock(compiled, graph)[1], None, compiled.executable.batch)
    return Annotations(
        shapes_by_line(compiled, graph),
        kernels_by_line(rows, update_line(compiled)),
        regions_by_line(rows),
        passes_by_line(compiled, graph, passes),
        code_by_line(compiled, graph),
        timed=bool(steps),
    )


def line_of(origin: Origin) -> ModelLine:
    return ModelLine(origin.file, origin.line)


# Collecting -----------------------------------------------------------------------------------------------------------


def shapes_by_line(compiled: Compilation, graph: str) -> dict[ModelLine, list[str]]:
    """The model's inputs, the results of calls, and further outputs of the graph, such as the loss."""
    found: dict[ModelLine, list[str]] = {}
    module = compiled.module
    declared = next(f.name.span for f in compiled.tree.functions if f.name.id == compiled.model.name)
    inputs = [f"{value.name} {value.type}" for value in module["predict"].of_kind("input")]
    found[ModelLine(declared.file, declared.line)] = inputs
    for call in calls_in(compiled.model.call):
        types = ", ".join(str(value.type) for value in tensors_in(call.output))
        name = call.path if call.kind != "fn" else call.name
        found.setdefault(ModelLine(call.span.file, call.span.line), []).append(f"{name} {types}")
    derived = module.get(graph, Graph(graph))  # passes may add graphs
    changed = {value.name for value in derived.of_kind(*VARIABLES)}
    for name, value in derived.outputs.items():
        if name not in changed and value.node and value.node.origin and name not in compiled.model.outputs:
            found.setdefault(line_of(value.node.origin), []).append(f"{name} {value.type}")
    return found


def calls_in(call: CallRecord) -> Iterator[CallRecord]:
    """Calls in the user's own files, without those inside library layers."""
    for child in call.children:
        yield child
        if not child.from_library:
            yield from calls_in(child)


def update_line(compiled: Compilation) -> ModelLine | None:
    span = compiled.model.train.spans.get("optimizer") if compiled.model.train else None
    return ModelLine(span.file, span.line) if span else None


def kernels_by_line(
    rows: Sequence[KernelRow], update: ModelLine | None
) -> dict[tuple[ModelLine | None, str], list[KernelRow]]:
    found: dict[tuple[ModelLine | None, str], list[KernelRow]] = {}
    for row in rows:
        first = row.places[0] if row.places else None
        line = line_of(first) if first else None
        direction = "backward" if first and first.backward else "update" if line and line == update else "forward"
        found.setdefault((line, direction), []).append(row)
    return found


def regions_by_line(rows: Sequence[KernelRow]) -> dict[ModelLine, list[str]]:
    found: dict[ModelLine, list[str]] = {}
    for row in rows:
        first, *others = dict.fromkeys(map(line_of, row.places)) if row.places else [None]
        for line in others:
            assert line and first
            where = f"line {first.number}" + (f" of {first.file}" if first.file != line.file else "")
            found.setdefault(line, []).append(f"{row.name} (at {where})")
    return found


def passes_by_line(compiled: Compilation, graph: str, passes: Sequence[Pass]) -> dict[ModelLine, list[str]]:
    """The passes that changed the nodes of a line, or how many of them run in a region."""
    found: dict[ModelLine, list[str]] = {}
    module = compiled.module
    before = nodes_by_line(module.get(graph))
    for each, label in zip(passes, labels(passes), strict=True):
        module = run_pass(each, module)
        after = nodes_by_line(module.get(graph))
        for line in {**before, **after}:
            if change := show_change(before.get(line, Counter()), after.get(line, Counter())):
                found.setdefault(line, []).append(f"{label:<{PASS_WIDTH}}{change}")
        before = after
    return found


Nodes = Counter[tuple[str, bool]]  # ops, and whether they are in a region


def nodes_by_line(graph: Graph | None) -> dict[ModelLine, Nodes]:
    found: dict[ModelLine, Nodes] = {}

    def visit(nodes: Sequence[Node], in_region: bool) -> None:
        for node in nodes:
            is_region = REGION in node.op.traits
            if node.origin and not is_region:
                found.setdefault(line_of(node.origin), Counter())[node.op.name, in_region] += 1
            if "body" in node.attributes:
                visit(node.body.nodes, in_region or is_region)

    visit(graph.nodes if graph else [], False)
    return found


def show_change(before: Nodes, after: Nodes) -> str:
    """`−3 mul +1 neg`, and the number of nodes in regions if it changed; empty without a change."""
    change: Counter[str] = Counter()
    for (op, _), count in after.items():
        change[op] += count
    for (op, _), count in before.items():
        change[op] -= count
    ordered = sorted((op for op in change if change[op]), key=lambda op: (-abs(change[op]), op))
    shown = [f"{'+' if change[op] > 0 else '−'}{abs(change[op])} {op}" for op in ordered[:MOST_OPS]]
    shown += ["…"] if ordered[MOST_OPS:] else []
    inside, inside_before = (sum(n for (_, region), n in nodes.items() if region) for nodes in (after, before))
    if inside != inside_before:
        shown.append(f"{inside} of {after.total()} nodes in regions")
    return " ".join(shown)


def code_by_line(compiled: Compilation, graph: str) -> dict[ModelLine, list[int]]:
    """The lines below each heading of the generated source, up to the next heading or an empty line."""
    target = find_target(compiled.executable.target)
    headings = {target.heading(node.origin): node.origin for node in compiled.optimized[graph].walk()}
    begins = target.graph_begins.format(graph)
    found: dict[ModelLine, list[int]] = {}
    inside, here = False, None
    for number, text in enumerate(compiled.executable.source.splitlines(), 1):
        if text.startswith(("def ", '"""', begins)):  # the end of a text, too
            inside, here = text.startswith(begins), None
        elif not text or text.strip() in headings:
            here = headings.get(text.strip())
        elif inside and here and not text.lstrip().startswith(COMMENTS):
            found.setdefault(line_of(here), []).append(number)
    return found


# Showing --------------------------------------------------------------------------------------------------------------


def format_annotations(annotations: Annotations, tree: Program, sources: Mapping[str, str]) -> str:
    """The annotated text of the program's file, then of the imported files that code was generated from."""
    lines = annotations.lines()
    files = [tree.file, *sorted({line.file for line in lines if line.file in sources} - {tree.file})]
    parts: list[str] = []
    for file in files:
        texts = sources.get(file, "").splitlines()
        parts += ["", f"{file}", ""] if len(files) > 1 else []
        for number, text in enumerate(texts, 1):
            parts.append(f"{number:>{LABEL - 3}} | {text}".rstrip())
            parts += notes(annotations, ModelLine(file, number))
    made = [text for direction in DIRECTIONS for text in kernel_notes(annotations, None, direction)]
    return "\n".join([*parts, *(["made by the compiler", *made] if made else [])]).strip("\n") + "\n"


def notes(annotations: Annotations, line: ModelLine) -> Iterator[str]:
    """The notes below a line of the model."""
    yield from labelled("shapes", annotations.shapes.get(line, ()))
    for direction in DIRECTIONS:
        yield from kernel_notes(annotations, line, direction)
    yield from labelled("also in", wrapped(annotations.regions.get(line, ())))
    yield from labelled("passes", annotations.passes.get(line, ()))
    yield from labelled("code", wrapped(ranges(annotations.code.get(line, ()))))


def kernel_notes(annotations: Annotations, line: ModelLine | None, direction: str) -> Iterator[str]:
    """One line per kernel name, with the total first if there are several."""
    rows = annotations.kernels.get((line, direction), [])
    names = list(dict.fromkeys(row.name for row in rows))
    shown = [show_kernel([row for row in rows if row.name == name], name, annotations.timed) for name in names]
    shown = [show_kernel(rows, "in total", annotations.timed), *shown] if len(names) > 1 else shown
    yield from labelled(direction, shown)


def show_kernel(rows: Sequence[KernelRow], name: str, timed: bool) -> str:
    time = f"{sum(row.seconds for row in rows) * 1e3:9.3f} ms " if timed else ""
    calls = sum(row.calls for row in rows)
    return f"{time}{sum(row.cost.bytes for row in rows) / 1e6:9.3f} MB  {f'{calls:.0f} ' if calls > 1 else ''}{name}"


def labelled(label: str, texts: Sequence[str]) -> Iterator[str]:
    for i, text in enumerate(texts):
        yield f"{'':{LABEL}}{'' if i else label:<{COLUMN - LABEL}}{text}"


def wrapped(items: Sequence[str]) -> list[str]:
    """Comma-separated items, wrapped to the width."""
    return textwrap.wrap(", ".join(items), WIDTH - COLUMN, break_long_words=False, break_on_hyphens=False)


def ranges(numbers: Sequence[int]) -> list[str]:
    """`3–5`, `8`"""
    ends = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
    parts = [numbers[a:b] for a, b in pairwise([0, *ends, len(numbers)])] if numbers else []
    return [f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
