"""What the runtime must know about a compiled program, from its graphs: names, types, and the ranges of indices."""

from __future__ import annotations

from compiler.elaborate.context import COUNTERS
from compiler.elaborate.model import ElaboratedModel
from compiler.ir.graph import VARIABLES, Graph, Module, Value
from compiler.ir.types import Batch, TensorType
from runtime.program import Manifest, Settings, TensorSpec

SAME_NUMBERS = ("reshape", "broadcast", "cast")  # the result has all numbers of the operand, and no others


def describe(model: ElaboratedModel, module: Module, optimizer: str = "") -> Manifest:
    """The manifest of a program. Ranges of indices come from the graphs before any pass."""
    graph = model.module.get("evaluate", model.module["predict"])
    values = model.train.values if model.train else {}
    settings = Settings(**{key: values[key] for key in Settings.__dataclass_fields__ if key in values})
    kinds = {name: variable.kind for name, variable in model.variables.by_name.items()}
    kept = {*kinds, *COUNTERS}  # without folded values
    return Manifest(
        model=model.name,
        inputs=tuple(spec(v.name, v.type, "input") for v in module["predict"].of_kind("input")),
        targets=tuple(spec(v.name, v.type, "target") for v in graph.of_kind("target")),
        outputs=tuple(spec(name, type, "output") for name, type in model.outputs.items()),
        variables=tuple(spec(n, t, kinds.get(n, "counter")) for n, t in variable_types(module).items() if n in kept),
        metrics=tuple(model.train.metric_names) if model.train else (),
        classes=index_ranges(graph),
        scales=dict(model.conversions.scales),
        chosen_scales=tuple(model.conversions.chosen_scales),
        settings=settings,
        optimizer=optimizer,
    )


def spec(name: str, type: TensorType, kind: str) -> TensorSpec:
    return TensorSpec(name, type.dtype, tuple(None if isinstance(d, Batch) else d for d in type.shape), kind)


def index_ranges(graph: Graph) -> dict[str, int]:
    """The number of values an integer input or target may take, if it is compared with iota(n) or indexes a table."""
    ranges: dict[str, int] = {}
    source: dict[Value, str] = {value: value.name for value in graph.of_kind("input", "target")}
    for node in graph.nodes:
        known = [source.get(operand) for operand in node.operands]
        if node.op.name in SAME_NUMBERS and known[0] and not node.result.type.is_float:
            source[node.result] = known[0]
        elif node.op.lookup and (name := known[node.op.lookup[1]]):
            ranges[name] = int(node.operands[node.op.lookup[0]].type.shape[0])  # type: ignore[arg-type]
        elif node.op.name == "eq":
            sizes = [iota_size(operand) for operand in node.operands]
            name, size = next(((k, s) for k, s in zip(known, sizes[::-1], strict=True) if k and s), (None, None))
            if name and size:
                ranges[name] = size
    return ranges


def iota_size(value: Value) -> int | None:
    """n if the value is iota(n), maybe reshaped, broadcast or cast."""
    while value.node and value.node.op.name in SAME_NUMBERS:
        value = value.node.operands[0]
    return value.node.attributes["size"] if value.node and value.node.op.name == "iota" else None


def variable_types(module: Module) -> dict[str, TensorType]:
    """Params, then states, slots, counters and folded values: each kind is contiguous."""
    known = {value.name: value for graph in module.values() for value in graph.of_kind(*VARIABLES)}
    types = {name: value.type for name, value in known.items()}
    if "init" in module:  # optional in IR text
        types = {name: value.type for name, value in module["init"].outputs.items()} | types | COUNTERS
    kinds = dict.fromkeys(COUNTERS, "counter") | {name: value.kind for name, value in known.items()}
    ordered = sorted(types, key=lambda name: VARIABLES.index(kinds.get(name, "param")))
    return {name: types[name] for name in ordered}
