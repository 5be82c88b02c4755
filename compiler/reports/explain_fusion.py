"""The fused regions of a program in words, and why other neighbouring ops are not fused.

The report is made from the optimized graphs that the source is generated from, so each region in it is also one in the
source. A place in the model is named after the function or layer called there, such as `BatchNorm`, or else by its op.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compiler.elaborate.library import library
from compiler.elaborate.signatures import counted
from compiler.elaborate.values import snake_case
from compiler.ir.graph import Graph, Literal, Module, Node
from compiler.ir.op import LOOP, VIEW
from compiler.ir.printer import number
from compiler.language.syntax import Program
from compiler.targets.shared.regions import Region, flattened, is_backward
from compiler.targets.target import Target
from runtime.errors import shortened

MOST_EDGES = 4  # pairs of neighbours shown for each reason
MOST_WORDS = 8  # describing a region
MOST_LINES = 3
MOST_PARAMS = 2  # named in an update
WORDS = {  # for ops that passes may have moved to another place
    "matmul": "matrix product",
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv2d_filter_grad"), "convolution"),
    **dict.fromkeys(("max_pool2d_route", "max_pool2d_grad"), "max pooling"),
}


@dataclass(frozen=True)
class ModelNames:
    """Names for places in the model, from the texts of its files and the functions that can be called in them."""

    sources: Mapping[str, str]
    known: Container[str]

    @classmethod
    def of(cls, tree: Program, sources: Mapping[str, str]) -> ModelNames:
        return cls(sources, {*library().names(), *(function.name.id for function in tree.functions)})

    def word(self, node: Node) -> str:
        """The name at a node's place with the layer inside it, such as `Bidirectional lstm`; or else its op."""
        origin = node.origin
        if origin is None or origin.file not in self.sources:
            return node.op.name
        lines = self.sources[origin.file].splitlines()
        text = lines[origin.line - 1][origin.column - 1 :] if origin.line <= len(lines) else ""
        match = re.match(r"[A-Za-z_]\w*", text)
        if not match or match[0] not in self.known:
            return node.op.name
        layers = [re.sub(r"_\d+$", "", part) for part in origin.path.split(".")]
        here = snake_case(match[0])
        return " ".join([match[0], *layers[layers.index(here) + 1 :]]) if here in layers else match[0]


NO_NAMES = ModelNames({}, ())


def explain(module: Module, target: Target, names: ModelNames = NO_NAMES, graph: str | None = None) -> str:
    """The report on all graphs that run on the target, or on one."""
    graphs = [each for each in module.values() if graph in (None, each.name)]
    return "\n\n".join("\n".join(GraphReport(each, target, names).lines()) for each in graphs) + "\n"


class GraphReport:
    """The report on one graph, or on the body of a scan."""

    def __init__(self, graph: Graph, target: Target, names: ModelNames, scan: str = ""):
        self.target, self.names = target, names
        self.title = scan or f"graph {graph.name}"
        self.graph, self.regions = flattened(graph)
        self.numbers = number(graph)
        self.scans = [node for node in graph.nodes if LOOP in node.op.traits]
        self.reason = target.reasons(self.graph, self.regions, bool(scan))
        self.home = {node: i for i, region in enumerate(self.regions, 1) for node in region}
        self.params = {value.name for value in graph.of_kind("param")}

    def lines(self) -> Iterator[str]:
        kernels = [node for node in self.graph.nodes if VIEW not in node.op.traits]
        others = sum(node not in self.home for node in kernels)
        count = len(self.regions)
        inside = f"{len(kernels) - others} in {counted(count, 'region')}, {others} not fused" if count else "no regions"
        yield f"{self.title}: {counted(len(kernels), 'node')}, {inside}"
        for i, region in enumerate(self.regions, 1):
            nodes = sum(VIEW not in node.op.traits for node in region)
            yield f"  region {i:<3} {nodes:>3} nodes  {self.describe(region)}"
        yield from self.not_fused()
        for scan in self.scans:
            yield ""
            title = f"body of the scan %{self.numbers[scan.results[0]]} of {self.title}, {self.place(scan)}"
            yield from GraphReport(scan.body, self.target, self.names, title).lines()

    # Regions ----------------------------------------------------------------------------------------------------------

    def describe(self, region: Region) -> str:
        """`line 5: convolution + BatchNorm + MaxPool2D + relu in conv_block_1`"""
        nodes = [node for node in region if VIEW not in node.op.traits]
        updates = [node for node in nodes if node.origin and node.origin.path in self.params]
        rest = [node for node in nodes if node not in updates]
        parts = [self.words(node for node in rest if not is_backward(node))]
        parts.append(self.words((node for node in rest if is_backward(node)), "backward of "))
        parts.append(self.update_words(updates))
        return f"{lines_of(nodes)}: {'; '.join(filter(None, parts))}{common_path(rest)}"

    def words(self, nodes: Iterable[Node], before: str = "") -> str:
        found = list(dict.fromkeys(map(self.word, nodes)))
        found = [word for word in found if not any(other.startswith(f"{word} ") for other in found)]
        more = ["…"] if found[MOST_WORDS:] else []
        return before + " + ".join(found[:MOST_WORDS] + more) if found else ""

    def word(self, node: Node) -> str:
        """The word for a node: its name in the model, or one for its op if that says more."""
        is_relu = node.op.name == "max" and any(isinstance(v, Literal) and v.value == 0 for v in node.operands)
        return "relu" if is_relu else WORDS.get(node.op.name) or self.names.word(node)

    def update_words(self, updates: Sequence[Node]) -> str:
        """`SGD of dense_1.b, batch_norm_1.gamma and 1 more`"""
        params = dict.fromkeys(node.origin.path for node in updates if node.origin)
        return f"{self.words(updates)} of {shortened(list(params), MOST_PARAMS)}" if params else ""

    # Neighbours that are not fused ------------------------------------------------------------------------------------

    def not_fused(self) -> Iterator[str]:
        """The reasons against fusing, each with some of the neighbours it applies to."""
        reasons: dict[str, Counter[str]] = {}
        for node in self.graph.nodes:
            for value in dict.fromkeys(node.operands):
                source = value.node
                if source and VIEW not in node.op.traits | source.op.traits and not self.are_fused(source, node):
                    edge = f"{self.place(source)} → {self.place(node)}"
                    reasons.setdefault(self.reason(source, value, node), Counter())[edge] += 1
        for reason, edges in reasons.items():
            yield f"  not fused: {reason}"
            for edge, count in list(edges.items())[:MOST_EDGES]:
                yield f"    {edge}" + (f", {count} times" if count > 1 else "")
            if more := sum(list(edges.values())[MOST_EDGES:]):
                yield f"    and {more} more"

    def are_fused(self, source: Node, reader: Node) -> bool:
        return self.home.get(source, source) == self.home.get(reader, reader)

    def place(self, node: Node) -> str:
        """`BatchNorm 5:58 mul (backward)`"""
        if node.origin is None:
            return node.op.name
        word = self.names.word(node)
        op = "" if word == node.op.name else f" {node.op.name}"
        backward = " (backward)" if node.origin.backward else ""
        return f"{word}{op} {node.origin.line}:{node.origin.column}{backward}"


def lines_of(nodes: Iterable[Node]) -> str:
    """`line 5`, `lines 13, 21`; with file names if there are several files."""
    places = sorted({(node.origin.file, node.origin.line) for node in nodes if node.origin})
    files = {file for file, _ in places}
    shown = [str(line) if len(files) == 1 else f"{file}:{line}" for file, line in places]
    return f"line{'s' if len(shown) > 1 else ''} {shortened(shown, MOST_LINES)}" if shown else "made by the compiler"


def common_path(nodes: Iterable[Node]) -> str:
    """The layer with parts that contains all nodes, if there is one: ` in conv_block_1`."""
    paths = [node.origin.path.split(".") for node in nodes if node.origin and node.origin.path]
    shared = [names[0] for names in zip(*paths, strict=False) if len(set(names)) == 1]
    return f" in {'.'.join(shared)}" if shared and any(len(path) > len(shared) for path in paths) else ""
