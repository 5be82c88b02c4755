"""All stages in order: text to tree to graphs to train step to optimized graphs to a memory plan to source.

text ──parse──▶ tree ──elaborate──▶ graphs ──differentiate──▶ train step ──passes──▶ ──plan──▶ ──generate──▶ source
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from compiler.diagnostics import Diagnostics, Span, UserError
from compiler.elaborate.inputs import Storage
from compiler.elaborate.model import ElaboratedModel
from compiler.elaborate.namespaces import library, with_imports
from compiler.elaborate.program import check_all, elaborate
from compiler.gradient.train_step import differentiate
from compiler.ir.graph import Module
from compiler.ir.types import TensorType
from compiler.ir.verifier import verify_module
from compiler.language.formatter import format_expression, format_program
from compiler.language.parser import parse, parse_expression, read_source
from compiler.language.syntax import Entry, Name, Program, String, Train
from compiler.passes.pipeline import PIPELINES, Pass, check_complete, run_pipeline
from compiler.planning.manifest import describe, variable_types
from compiler.planning.memory import Plan, plan_graph
from compiler.planning.packing import aligned
from compiler.targets.target import Target, find_target
from compiler.timings import Timings
from runtime.datasets import BUILT_IN
from runtime.program import INFERENCE, PREPARE, Executable, Manifest, Settings

Overrides = Sequence[tuple[str, str]]  # keys of the train block and their values as source text


@dataclass
class Compilation:
    """Everything that one program became on its way."""

    tree: Program
    model: ElaboratedModel
    module: Module  # before passes
    optimized: Module
    plans: list[Plan]
    executable: Executable
    manifest: Manifest


def load_tree(
    path: str | Path, overrides: Overrides = (), model: str | None = None, diagnostics: Diagnostics | None = None
) -> Program:
    """Reads and parses a file with its imports; raises UserError with all mistakes of a file that has syntax errors."""
    diagnostics = Diagnostics() if diagnostics is None else diagnostics
    text = read_source(path, diagnostics)
    diagnostics.raise_if_any()
    tree = with_imports(parse(text or "", str(path), diagnostics), diagnostics)
    if len(diagnostics):
        check_all(tree, diagnostics)
    diagnostics.raise_if_any()
    return override(tree, overrides, model, diagnostics)


def override(
    tree: Program, overrides: Overrides, model: str | None = None, diagnostics: Diagnostics | None = None
) -> Program:
    """The program with keys of its train block (`model`'s, or every one) replaced."""
    if overrides and not any(model in (None, train.model.id) for train in tree.trains):
        message = f"{tree.file} has no train block whose {overrides[0][0].removeprefix('--')} could be replaced"
        raise UserError.plain(message, expected=f"train {model or 'Model'} {{ loss = …; optimizer = … }}", found="none")
    for key, value in overrides:
        entry = read_entry(key, value, Diagnostics() if diagnostics is None else diagnostics)
        trains = tuple(with_entry(t, entry) if model in (None, t.model.id) else t for t in tree.trains)
        tree = replace(tree, trains=trains)
    return tree


def read_entry(key: str, value: str, diagnostics: Diagnostics) -> Entry:
    """The entry `key = value` that a flag gives: `--batch`, or a key of `--set`."""
    label, name = key if key.startswith("--") else f"--set {key}", key.removeprefix("--").removeprefix("train.")
    before = f"{name} = "
    diagnostics.sources[label] = before + value
    try:
        parsed = parse_expression(" " * len(before) + value, label, Diagnostics())
    except UserError as error:
        raise UserError(error.diagnostics, diagnostics.sources) from None
    return Entry(Name(name, span=Span(label, 1, 1, 1, len(name) + 1)), parsed, span=parsed.span)


def with_entry(train: Train, entry: Entry) -> Train:
    kept = tuple(old for old in train.entries if old.key.id != entry.key.id)
    return replace(train, entries=(*kept, entry))


def compile_tree(
    tree: Program,
    *,
    model: str | None = None,
    storage: Mapping[str, Storage] | None = None,
    passes: Sequence[Pass] | None = None,
    diagnostics: Diagnostics | None = None,
    timings: Timings | None = None,
    target: str = "numpy",
) -> Compilation:
    """Compiles a parsed program, by default with the target's passes; raises UserError with all its mistakes."""
    passes = PIPELINES[target] if passes is None else passes
    check_complete(passes, PIPELINES[target])
    diagnostics = Diagnostics() if diagnostics is None else diagnostics
    timings = timings or Timings()
    with timings.phase("parse"):
        library()
    with timings.phase("elaborate"):
        elaborated = elaborate_one(tree, model, storage, diagnostics)
    with timings.phase("differentiate"):
        module = differentiate_one(elaborated, diagnostics)
    with timings.phase("passes"):
        optimized = run_pipeline(module, passes)
    manifest = describe(elaborated, optimized, optimizer_of(tree, elaborated.name))
    batch, title, chosen = manifest.settings.batch, title_of(tree, elaborated), find_target(target)
    with timings.phase("plan"):
        plans, variables = plan_module(optimized, batch, chosen)
    with timings.phase("generate"):
        host = {name: module[name] for name in chosen.on_host if name in module}
        initializer = host_executable(host, title, f"<nnc {elaborated.name} on the host>", batch) if host else None
        size = max([plan.size for plan in plans])
        source = chosen.generate(title, plans, variables)
        names = tuple(each.name for each in passes)
        executable = Executable(source, f"<nnc {elaborated.name}>", size, batch, target, initializer, names)
    return Compilation(tree, elaborated, module, optimized, plans, executable, manifest)


def host_executable(module: Module, title: str, name: str, batch: int) -> Executable:
    """What NumPy runs of a program for another target."""
    numpy = find_target("numpy")
    plans, variables = plan_module(run_pipeline(module), batch, numpy)
    return Executable(
        numpy.generate(title, plans, variables), name, max(plan.size for plan in plans), batch, numpy.name
    )


def compile_file(path: str | Path) -> Compilation:
    """`compile_tree` of a file."""
    diagnostics = Diagnostics()
    return compile_tree(load_tree(path, diagnostics=diagnostics), diagnostics=diagnostics)


def elaborate_one(
    tree: Program, model: str | None, storage: Mapping[str, Storage] | None, diagnostics: Diagnostics
) -> ElaboratedModel:
    """One model; if it has mistakes, UserError with those of the whole file."""
    elaborated = elaborate(tree, diagnostics, model, storage)
    diagnostics.raise_if_any()
    assert elaborated is not None
    verify_module(elaborated.module, "elaboration")
    return elaborated


def differentiate_one(elaborated: ElaboratedModel, diagnostics: Diagnostics) -> Module:
    """The module with its training step complete; raises UserError."""
    module = differentiate(elaborated, diagnostics)
    diagnostics.raise_if_any()
    verify_module(module, "differentiation")
    return module


def title_of(tree: Program, model: ElaboratedModel) -> str:
    """The first line of the generated source."""
    return f"{tree.file}: model {model.name}, generated by nnc"


def elaborate_models(tree: Program, model: str | None, diagnostics: Diagnostics) -> list[ElaboratedModel]:
    """All models of a program, or one; raises UserError with all mistakes."""
    if model is not None:
        return [elaborate_one(tree, model, None, diagnostics)]
    found = check_all(tree, diagnostics)
    diagnostics.raise_if_any()
    return found


def check_models(tree: Program, model: str | None, diagnostics: Diagnostics) -> list[ElaboratedModel]:
    """The same with their training steps, in which mistakes of optimizers and of derivatives show."""
    found = elaborate_models(tree, model, diagnostics)
    for each in found:
        differentiate(each, diagnostics)
    diagnostics.raise_if_any()
    return found


def data_of(tree: Program, model: str | None) -> str:
    """The data set that the train block names, before anything is elaborated; mistakes in it are found then."""
    trains = [train for train in tree.trains if model in (None, train.model.id)]
    for entry in trains[0].entries if trains else ():
        if entry.key.id == "data" and isinstance(entry.value, String):
            return entry.value.value
        if entry.key.id == "data" and isinstance(entry.value, Name) and entry.value.id in BUILT_IN:
            return entry.value.id
    return Settings().data


def optimizer_of(tree: Program, model: str) -> str:
    """The optimizer as the train block of a model has it."""
    entries = [entry for train in tree.trains if train.model.id == model for entry in train.entries]
    return next((format_expression(entry.value) for entry in entries if entry.key.id == "optimizer"), "")


def resolved_text(compiled: Compilation) -> str:
    """The program as source, imports inlined and every setting written out, without the training of other models."""
    model, settings = compiled.model.name, asdict(compiled.manifest.settings)
    tree = replace(compiled.tree, trains=tuple(t for t in compiled.tree.trains if t.model.id == model))
    given = {entry.key.id for train in tree.trains for entry in train.entries}
    text = {key: show_setting(value) for key, value in settings.items() if key not in given}
    return format_program(override(tree, tuple(text.items())))


def show_setting(value: object) -> str:
    return "none" if value is None else str(value).lower()


def plan_module(module: Module, batch: int, target: Target) -> tuple[list[Plan], list[tuple[str, TensorType, int]]]:
    """Plans of all graphs that run on the target, and the variables with their offsets.

    Variables come first, each at an offset for good; the graphs share the bytes after them, since one runs at a time.
    Only `prepare` runs while the inputs of another may be filled already, and so works behind it.
    """
    variables, offset = [], 0
    for name, type in variable_types(module).items():
        variables.append((name, type, offset))
        offset += aligned(type.bytes_at(1))
    placed = {name: at for name, _, at in variables}
    plans: dict[str, Plan] = {}
    here = [(name, graph) for name, graph in module.items() if name not in target.on_host]
    for name, graph in sorted(here, key=lambda item: item[0] == PREPARE):
        base = max((plans[each].size for each in INFERENCE if each in plans and name == PREPARE), default=offset)
        plans[name] = plan_graph(graph, batch, base, placed, target.placement)
    return list(plans.values()), variables
