"""What fusion does to the graphs of a program, in words: the regions it makes, and why neighbours stay apart.

`explain` looks at a module as it stands just before the pass that fuses: `fusion`, or `kernels` for a GPU. A place in
the model is told by the name that is called there, such as `BatchNorm`, or by its op where none is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compiler.elaborate.library import library
from compiler.elaborate.signatures import counted
from compiler.elaborate.values import snake_case
from compiler.ir.graph import Graph, Literal, Module, Node, Value
from compiler.ir.op import VIEW
from compiler.ir.printer import number
from compiler.language.syntax import Program
from compiler.planning.memory import scan_length
from compiler.targets.cupy.grouping import Grouping
from compiler.targets.numpy.fusion import PRODUCTS, Kind, kind_of, refusal, regions_of
from compiler.targets.shared.regions import Region

MOST_EDGES = 4  # between neighbours that are named for each reason
MOST_WORDS = 8  # of a region
MOST_LINES = 3
MOST_PARAMS = 2  # of an update
WORDS = {  # of ops that passes may have moved to another place
    "matmul": "matrix product",
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv2d_filter_grad"), "convolution"),
    **dict.fromkeys(("max_pool2d_route", "max_pool2d_grad"), "max pooling"),
}
BEGINS = "a product reads all of its operands before it has a result: it begins a region"
SHARED_PRODUCT = "more than one region reads the product, or what reads it cannot be in one: it belongs to none"
KEPT = "kept for the backward pass, which begins at the loss, when the whole forward pass has run"
BETWEEN = "a path between them leads through something that cannot be in the region"
EARLIER = "it runs in the region of an earlier reader"
FREE = "costs nothing, and is computed wherever it is read"


@dataclass(frozen=True)
class Names:
    """What stands where in the model: the texts of its files, and the names that are called in them."""

    sources: Mapping[str, str]
    known: Container[str]

    @classmethod
    def of(cls, tree: Program, sources: Mapping[str, str]) -> Names:
        return cls(sources, {*library().names(), *(function.name.id for function in tree.functions)})

    def word(self, node: Node) -> str:
        """The name at a node's place, and the layer inside of it, as `Bidirectional lstm`; or its op."""
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


NO_NAMES = Names({}, ())


def explain(module: Module, names: Names = NO_NAMES, graph: str | None = None, by: str = "fusion") -> str:
    """The report of all graphs, or of one; `by` names the pass."""
    graphs = [each for each in module.values() if graph in (None, each.name)]
    return "\n\n".join("\n".join(GraphReport(each, names, FUSIONS[by]).lines()) for each in graphs) + "\n"


def launches(graph: Graph) -> int:
    """How many kernels a run of a graph starts: one for a node or region, at every step of a scan; none for views."""
    kernels = [node for node in graph.nodes if VIEW not in node.op.traits]
    return sum(scan_length(n, 1) * launches(n.body) if n.op.name == "scan" else 1 for n in kernels)


class Fused:
    """What the pass `fusion` makes of a graph."""

    def __init__(self, graph: Graph):
        self.regions = regions_of(graph)
        self.kinds: dict[Node, Kind] = {node: kind_of(node) for node in graph.nodes}
        self.position = {node: i for i, node in enumerate(graph.nodes)}

    def remark(self, nodes: Iterable[Node]) -> str:
        return " (numbers and small vectors)" if all(self.kinds[node].small for node in nodes) else ""

    def reason(self, source: Node, value: Value, reader: Node) -> str:
        """Why two neighbours are not in one region."""
        if reader.op.name in PRODUCTS:
            return BEGINS
        if source.op.name in PRODUCTS:
            return SHARED_PRODUCT
        if refused := refusal(self.kinds[source], self.kinds[reader], reader.operands.index(value)):
            return refused
        if is_backward(reader) and not is_backward(source):
            return KEPT
        return BETWEEN if self.leads_to(source, reader) else EARLIER

    def leads_to(self, source: Node, reader: Node) -> bool:
        """Whether a path from one node to another leads through a third."""
        pending = [value.node for value in reader.operands if value.node not in (None, source)]
        seen: set[Node] = set()
        while pending:
            node = pending.pop()
            if node is source:
                return True
            if node and node not in seen and self.position.get(node, -1) > self.position[source]:
                seen.add(node)
                pending += [value.node for value in node.operands]
        return False


class Launched:
    """What the pass `kernels` makes of a graph."""

    def __init__(self, graph: Graph):
        self.grouping = Grouping(graph)
        self.regions = [nodes for nodes in self.grouping.members.values() if len(nodes) > 1]

    def remark(self, nodes: Iterable[Node]) -> str:
        return ""

    def reason(self, source: Node, value: Value, reader: Node) -> str:
        """Why two neighbours are not in one region; what costs nothing is computed wherever it is read."""
        group = self.grouping.group
        if source not in group or reader not in group:
            return FREE
        return self.grouping.refusal(group[source], group[reader]) or EARLIER


FUSIONS = {"fusion": Fused, "kernels": Launched}


class GraphReport:
    """The report of one graph, or of the body of a scan."""

    def __init__(self, graph: Graph, names: Names, fusion: type[Fused | Launched], title: str = ""):
        self.graph, self.names, self.kind = graph, names, fusion
        self.title = title or f"graph {graph.name}"
        self.fused = fusion(graph)
        self.regions: Sequence[Region] = self.fused.regions
        self.home = {node: i for i, region in enumerate(self.regions, 1) for node in region}
        self.params = {value.name for value in graph.of_kind("param")}

    def lines(self) -> Iterator[str]:
        kernels = [node for node in self.graph.nodes if VIEW not in node.op.traits]
        alone = sum(node not in self.home for node in kernels)
        count = len(self.regions)
        made = f"{counted(count, 'region')} and {counted(alone, 'node')}"
        yield f"{self.title}: {len(kernels)} nodes become {count + alone}: {made}"
        for i, region in enumerate(self.regions, 1):
            nodes = sum(VIEW not in node.op.traits for node in region)
            yield f"  region {i:<3} {nodes:>3} nodes  {self.describe(region)}"
        yield from self.apart()
        numbers = number(self.graph)
        for node in self.graph.nodes:
            if node.op.name == "scan":
                yield ""
                title = f"body of the scan %{numbers[node.results[0]]} of {self.title}, {self.place(node)}"
                yield from GraphReport(node.body, self.names, self.kind, title).lines()

    # Regions ----------------------------------------------------------------------------------------------------------

    def describe(self, region: Region) -> str:
        """`line 5: convolution + BatchNorm + MaxPool2D + relu in conv_block_1`"""
        nodes = [node for node in region if VIEW not in node.op.traits]
        updates = [node for node in nodes if node.origin and node.origin.path in self.params]
        rest = [node for node in nodes if node not in updates]
        parts = [self.words(node for node in rest if not is_backward(node))]
        parts.append(self.words((node for node in rest if is_backward(node)), "backward of "))
        parts.append(self.update_words(updates))
        return f"{lines_of(nodes)}: {'; '.join(filter(None, parts))}{common_path(rest)}{self.fused.remark(nodes)}"

    def words(self, nodes: Iterable[Node], before: str = "") -> str:
        found = list(dict.fromkeys(map(self.word, nodes)))
        found = [word for word in found if not any(other.startswith(f"{word} ") for other in found)]
        more = ["…"] if found[MOST_WORDS:] else []
        return before + " + ".join(found[:MOST_WORDS] + more) if found else ""

    def word(self, node: Node) -> str:
        """What a node does, by the model or by its op where that says more."""
        is_relu = node.op.name == "max" and any(isinstance(v, Literal) and v.value == 0 for v in node.operands)
        return "relu" if is_relu else WORDS.get(node.op.name) or self.names.word(node)

    def update_words(self, updates: Sequence[Node]) -> str:
        """`SGD of dense_1.b, batch_norm_1.gamma and 1 more`"""
        params = dict.fromkeys(node.origin.path for node in updates if node.origin)
        return f"{self.words(updates)} of {shortened(list(params), MOST_PARAMS)}" if params else ""

    # Neighbours that stay apart ---------------------------------------------------------------------------------------

    def apart(self) -> Iterator[str]:
        """The reasons, each with some of the neighbours that it keeps apart."""
        reasons: dict[str, Counter[str]] = {}
        for node in self.graph.nodes:
            for value in dict.fromkeys(node.operands):
                source = value.node
                if (
                    source
                    and VIEW not in node.op.traits
                    and VIEW not in source.op.traits
                    and self.are_apart(source, node)
                ):
                    edge = f"{self.place(source)} → {self.place(node)}"
                    reasons.setdefault(self.fused.reason(source, value, node), Counter())[edge] += 1
        for reason, edges in reasons.items():
            yield f"  apart: {reason}"
            for edge, count in list(edges.items())[:MOST_EDGES]:
                yield f"    {edge}" + (f", {count} times" if count > 1 else "")
            if more := sum(list(edges.values())[MOST_EDGES:]):
                yield f"    and {more} more"

    def are_apart(self, source: Node, reader: Node) -> bool:
        return self.home.get(source, source) != self.home.get(reader, reader)

    def place(self, node: Node) -> str:
        """`BatchNorm 5:58 mul (backward)`"""
        if node.origin is None:
            return node.op.name
        word = self.names.word(node)
        op = "" if word == node.op.name else f" {node.op.name}"
        backward = " (backward)" if node.origin.backward else ""
        return f"{word}{op} {node.origin.line}:{node.origin.column}{backward}"


def is_backward(node: Node) -> bool:
    return node.origin is not None and node.origin.backward


def lines_of(nodes: Iterable[Node]) -> str:
    """`line 5`, `lines 13, 21`; with the file where there are several."""
    places = sorted({(node.origin.file, node.origin.line) for node in nodes if node.origin})
    files = {file for file, _ in places}
    shown = [str(line) if len(files) == 1 else f"{file}:{line}" for file, line in places]
    return f"line{'s' if len(shown) > 1 else ''} {shortened(shown, MOST_LINES)}" if shown else "made by the compiler"


def common_path(nodes: Iterable[Node]) -> str:
    """The layer that all nodes are in, and that has parts: ` in conv_block_1`."""
    paths = [node.origin.path.split(".") for node in nodes if node.origin and node.origin.path]
    shared = [names[0] for names in zip(*paths, strict=False) if len(set(names)) == 1]
    return f" in {'.'.join(shared)}" if shared and any(len(path) > len(shared) for path in paths) else ""


def shortened(items: Sequence[str], most: int) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if items[most:] else "")
