"""Programs as files that can be run again, and the reduction of those that fail."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from compiler.ir.graph import Graph
from compiler.ir.printer import print_graph
from tests.fuzz.checking import Outcome, check_graph, check_model
from tests.fuzz.graphs import add_gradients, generate_graph
from tests.fuzz.models import generate_model
from tests.fuzz.reducing import reduce_graph, reduce_text
from tests.programs import read_graph

KINDS = ("graph", "model")
GRAPHS_OF_FIVE = 3  # of every five seeds, this many are graphs, the others models
COMMENTS = {"graph": "//", "model": "#"}
SUFFIXES = {"graph": ".ir", "model": ".nn"}


@dataclass(frozen=True)
class Program:
    """A program to check: a graph in the IR or a program in the language, with the seed of its values.

    `differentiate`: whether gradients are added to a graph first.
    """

    kind: str
    seed: int
    text: str
    differentiate: bool = True

    def check(self, brief: bool = False) -> Outcome:
        if self.kind == "model":
            return check_model(self.text, self.seed, brief=brief)
        return check_graph(read_graph(self.text), self.seed, differentiate=self.differentiate, brief=brief)

    def file_text(self, outcome: Outcome) -> str:
        """The program with a header that says how to run it again."""
        mark = COMMENTS[self.kind]
        words = outcome.detail.split("\n")[0]
        head = [f"{mark} fuzz: seed={self.seed} differentiate={str(self.differentiate).lower()}"]
        head += [f"{mark} {outcome.bucket} at {outcome.stage}: {words}"[:118]]
        return "\n".join([*head, self.text.strip(), ""])


def program_of(seed: int) -> Program:
    """The program generated from a seed."""
    if seed % 5 < GRAPHS_OF_FIVE:
        return Program("graph", seed, print_graph(generate_graph(seed)) + "\n")
    return Program("model", seed, generate_model(seed))


def read_program(path: Path) -> Program:
    """Reads a file made by `file_text`, or any other .ir or .nn file, with seed 0."""
    text = path.read_text()
    kind = "graph" if path.suffix == ".ir" else "model"
    head = re.search(r"fuzz: seed=(\d+) differentiate=(true|false)", text)
    lines = [line for line in text.split("\n") if not line.startswith(COMMENTS[kind])]
    return Program(kind, int(head[1]) if head else 0, "\n".join(lines), not head or head[2] == "true")


def reduced(program: Program, outcome: Outcome, seconds: float = 60.0) -> Program:
    """A smaller program that fails in the same way."""

    def same(candidate: Program) -> bool:
        return candidate.check().signature == outcome.signature

    if program.kind == "model":
        text = reduce_text(program.text, lambda text: same(Program("model", program.seed, text)), seconds)
        return Program("model", program.seed, text)

    def smallest(graph: Graph, differentiate: bool) -> Program:
        def fails(graph: Graph) -> bool:
            return same(Program("graph", program.seed, print_graph(graph), differentiate))

        return Program("graph", program.seed, print_graph(reduce_graph(graph, fails, seconds)), differentiate)

    found = smallest(read_graph(program.text), program.differentiate)
    if found.differentiate and outcome.stage not in ("differentiate", "text"):
        flat = Program("graph", program.seed, print_graph(add_gradients(read_graph(found.text), program.seed)), False)
        if same(flat):  # once the gradients are explicit, most of them can be removed
            return smallest(read_graph(flat.text), False)
    return found
