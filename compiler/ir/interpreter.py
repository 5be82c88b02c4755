"""The oracle: runs any graph in float64 with each op's own NumPy reference, one node after another.

It shares no code with the code generators. Floats of every width are computed as float64; integers and bools keep
their types. An index outside its table raises IndexOutside, as in generated code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir.examples import indices_per_example
from compiler.ir.graph import Graph, Literal, Node, Value
from compiler.ir.op import BATCH
from compiler.ir.types import NUMPY_NAMES, Batch, TensorType, at_batch
from runtime.errors import IndexOutside

Arrays = dict[str, np.ndarray]
Evaluate = Callable[[Node, list[np.ndarray], int], Sequence[np.ndarray]]


class InterpreterError(AssertionError):
    """A reference returned a shape or type that differs from the op's rule: a bug in the op."""


def interpret(graph: Graph, inputs: Mapping[str, Any], batch: int = 1) -> Arrays:
    """The outputs of a graph by name; `inputs` by name, of the shapes of the graph's inputs with B = `batch`."""
    arrays = [as_reference(inputs[value.name], value.type, batch) for value in graph.inputs]
    return dict(zip(graph.outputs, run(graph, arrays, batch), strict=True))


def run(graph: Graph, arrays: Sequence[np.ndarray], batch: int, evaluate_node: Evaluate | None = None) -> list[Any]:
    """The outputs of a graph in order; values that are not read again are freed. `evaluate_node`: see `evaluate`."""
    environment: dict[Value, np.ndarray] = dict(zip(graph.inputs, arrays, strict=True))
    last = {operand: node for node in graph.nodes for operand in node.operands}
    kept = set(graph.outputs.values())
    for node in graph.nodes:
        operands = [read(environment, operand) for operand in node.operands]
        for value, array in zip(node.results, (evaluate_node or evaluate)(node, operands, batch), strict=True):
            environment[value] = checked(array, value.type, batch, node)
        for value in {*node.operands, *node.results} - kept:
            if last.get(value, node) is node:
                environment.pop(value, None)
    return [read(environment, value) for value in graph.outputs.values()]


def evaluate(node: Node, operands: list[np.ndarray], batch: int) -> list[np.ndarray]:
    attributes = {name: bind_batch(value, batch) for name, value in node.attributes.items()}
    if BATCH in node.op.traits:
        attributes["batch"] = batch
    try:
        results = node.op.reference(*operands, **attributes)
    except IndexOutside as outside:
        if "body" in node.attributes:  # it names the node in the body
            raise
        each = indices_per_example(node.operands[0])
        example = outside.example // each if each and outside.example is not None else None
        place, layer = node.origin.place_and_layer if node.origin else ("", "")
        raise IndexOutside(outside.value, outside.size, example, place, layer) from None
    return list(results) if isinstance(results, tuple | list) else [results]


def bind_batch(attribute: Any, batch: int) -> Any:
    if isinstance(attribute, Batch):
        return attribute.factor * batch
    if isinstance(attribute, tuple):
        return tuple(bind_batch(item, batch) for item in attribute)
    return attribute


def reference_dtype(type: TensorType) -> np.dtype[Any]:
    return np.dtype("float64" if type.is_float else NUMPY_NAMES[type.dtype])


def as_reference(array: Any, type: TensorType, batch: int) -> np.ndarray:
    """The array as the interpreter stores it; raises InterpreterError if the shape is wrong."""
    result = np.asarray(array, reference_dtype(type))
    if result.shape != at_batch(type.shape, batch):
        raise InterpreterError(f"expected {type} at B = {batch}, found shape {list(result.shape)}")
    return result


def read(environment: Mapping[Value, np.ndarray], value: Value) -> np.ndarray:
    return np.asarray(value.value, reference_dtype(value.type)) if isinstance(value, Literal) else environment[value]


def checked(array: Any, type: TensorType, batch: int, node: Node) -> np.ndarray:
    result = np.asarray(array)
    if result.shape != at_batch(type.shape, batch) or (result.dtype.kind == "f") != type.is_float:
        raise InterpreterError(
            f"{node.op.name}: expected {type}, the reference gave {result.dtype}{list(result.shape)}"
        )
    return result.astype(reference_dtype(type), copy=False)
