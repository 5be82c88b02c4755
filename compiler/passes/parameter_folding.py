"""fold-parameters: what `evaluate` and `predict` compute from variables alone is computed once, in a separate graph.

    predict(x, w) = f(x, g(w))   →   prepare(w) = g(w);  predict(x, folded) = f(x, folded)

The outputs of `prepare` are inputs of kind `folded` of the other graphs, which share common ones; they are not saved in
checkpoints. The runtime runs `prepare` before it evaluates or predicts. Views, which cost nothing, and values that do
not depend on a variable stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compiler.ir.builder import Builder
from compiler.ir.graph import Graph, Literal, Module, Node, Value, literal_key
from compiler.ir.op import VIEW
from compiler.passes.dead_code import remove_dead_code
from compiler.passes.fixed_values import fixed_values
from compiler.passes.rewriting import rebuild
from runtime.program import INFERENCE, PREPARE


def fold_parameters(module: Module) -> Module:
    """See the file's docstring. A module that already has a `prepare` is not changed."""
    if PREPARE in module:
        return module
    preparation = Preparation()
    folded = {name: preparation.take_from(module[name]) for name in INFERENCE if name in module}
    prepare = preparation.graph
    return {**module, **folded, PREPARE: prepare} if prepare.outputs else module


class Preparation:
    """The graph `prepare` under construction: one node for what several graphs compute."""

    def __init__(self) -> None:
        self.graph = Graph(PREPARE)
        self.builder = Builder(self.graph)
        self.variables: dict[str, Value] = {}
        self.known: dict[Any, list[Value]] = {}
        self.names: dict[Value, str] = {}

    def take_from(self, graph: Graph) -> Graph:
        """Moves what a graph computes from variables alone; returns the rest of the graph."""
        sources = computed_of_variables(graph)
        moved = self.copy(graph, sources)
        names = {source: self.name(moved[source]) for source in sources}
        inputs = {name: Value(source.type, name, "folded") for source, name in names.items()}

        def rule(builder: Builder, node: Node, operands: list[Value]) -> list[Value] | None:
            if names.keys().isdisjoint(node.results):
                return None
            return [inputs[names[value]] if value in names else value for value in node.results]

        rest = remove_dead_code(rebuild(graph, rule))
        rest.inputs += inputs.values()
        return rest

    def name(self, value: Value) -> str:
        """The name of an output. No variable of a model has such a name: theirs do not begin with a digit."""
        if value not in self.names:
            self.names[value] = f"folded.{len(self.names)}"
            self.graph.outputs[self.names[value]] = value
        return self.names[value]

    def copy(self, graph: Graph, sources: Iterable[Value]) -> dict[Value, Value]:
        """Adds the nodes that some values need; returns the new values by the old ones."""
        new: dict[Value, Value] = {}
        needed = Graph(graph.name, graph.inputs, graph.nodes, {str(i): value for i, value in enumerate(sources)})
        for node in remove_dead_code(needed).nodes:
            operands = [new.get(v, v) if v.node or isinstance(v, Literal) else self.variable(v) for v in node.operands]
            key = (node.op.name, tuple(map(literal_key, operands)), repr(node.attributes))
            if key not in self.known:
                self.known[key] = self.builder.emit_like(node, operands)
            new.update(zip(node.results, self.known[key], strict=True))
        return new

    def variable(self, value: Value) -> Value:
        if value.name not in self.variables:
            self.variables[value.name] = self.builder.input(value.name, value.type, value.kind)
        return self.variables[value.name]


def computed_of_variables(graph: Graph) -> list[Value]:
    """The values computed from variables alone that nodes depending on the data read, or that the graph returns."""
    fixed, constant = fixed_values(graph), fixed_values(graph, kinds=())
    varying = [node for node in graph.nodes if not fixed.issuperset(node.results)]
    read = [*(operand for node in varying for operand in node.operands), *graph.outputs.values()]
    sources = dict.fromkeys(unviewed(value) for value in read if value in fixed)
    return [source for source in sources if source.node is not None and source not in constant]


def unviewed(value: Value) -> Value:
    """The value that a value is a view of, at any depth."""
    while value.node is not None and VIEW in value.node.op.traits:
        value = value.node.operands[0]
    return value
