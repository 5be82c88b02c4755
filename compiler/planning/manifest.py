"""What the runtime must know about a compiled program, from its graphs: names, types, and the ranges of indices."""

from __future__ import annotations

from compiler.elaborate.context import COUNTERS
from compiler.elaborate.model import ElaboratedModel
from compiler.ir.graph import VARIABLES, Module
from compiler.ir.types import Batch, TensorType
from compiler.ops.ranges import index_limits
from compiler.planning.check_names import checks_of
from runtime.program import Manifest, Settings, TensorSpec


def describe(model: ElaboratedModel, before: Module, module: Module, optimizer: str = "") -> Manifest:
    """The manifest of a program: `module` is that after all passes. Facts about indices are from `before` them."""
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
        totals=model.totals,
        classes=index_limits(before),
        scales=dict(model.conversions.scales),
        chosen_scales=tuple(model.conversions.chosen_scales),
        checks=checks_of(before, module),
        settings=settings,
        optimizer=optimizer,
    )


def spec(name: str, type: TensorType, kind: str) -> TensorSpec:
    return TensorSpec(name, type.dtype, tuple(None if isinstance(d, Batch) else d for d in type.shape), kind)


def variable_types(module: Module) -> dict[str, TensorType]:
    """Params, then states, slots, counters and folded values: each kind is contiguous."""
    known = {value.name: value for graph in module.values() for value in graph.of_kind(*VARIABLES)}
    types = {name: value.type for name, value in known.items()}
    if "init" in module:  # optional in IR text
        types = {name: value.type for name, value in module["init"].outputs.items()} | types | COUNTERS
    kinds = dict.fromkeys(COUNTERS, "counter") | {name: value.kind for name, value in known.items()}
    ordered = sorted(types, key=lambda name: VARIABLES.index(kinds.get(name, "param")))
    return {name: types[name] for name in ordered}
