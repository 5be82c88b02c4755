"""The names of outputs that report whether an index was outside its table, on targets that cannot stop at it."""

from __future__ import annotations

from zlib import crc32

from compiler.ir.examples import indices_per_example
from compiler.ir.graph import Module, Node
from runtime.program import CHECK, IndexCheck


def facts_of(node: Node) -> IndexCheck:
    """What an error says about a check."""
    place, layer = node.origin.place_and_layer if node.origin else ("", "")
    return IndexCheck(place, layer, node.attributes["size"], indices_per_example(node.operands[0]))


def name_of(node: Node) -> str:
    """The name of the output for a check: the same for checks with the same facts."""
    return f"{CHECK}{crc32(repr(facts_of(node)).encode()):08x}"


def checks_of(module: Module, optimized: Module) -> dict[str, IndexCheck]:
    """The checks of a module by the name of their output, if that exists after the passes."""
    kept = {name for graph in optimized.values() for name in graph.outputs}
    nodes = [node for graph in module.values() for node in graph.walk() if node.op.name == "check_index"]
    return {name: facts_of(node) for node in nodes if (name := name_of(node)) in kept}
