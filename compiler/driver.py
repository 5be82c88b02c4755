"""All stages of the compiler in order, from the text of a program to the source that runs it.

text ──parse──▶ tree ──elaborate──▶ graphs ──differentiate──▶ train step ──passes──▶ ──plan──▶ ──generate──▶ source

`stages_of_program` is this line, one stage at a time. `compile_tree` runs it to the end; `emit` and `opt` print single
stages (reports/stages.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from compiler.diagnostics import Diagnostics, Span, UserError
from compiler.elaborate.inputs import Storage
from compiler.elaborate.library import library, with_imports
from compiler.elaborate.model import ElaboratedModel
from compiler.elaborate.program import check_all, elaborate
from compiler.gradient.train_step import differentiate
from compiler.ir.graph import Module
from compiler.ir.verifier import verify_module
from compiler.language.formatter import format_expression, format_program
from compiler.language.parser import parse, parse_expression, read_source
from compiler.language.syntax import Entry, Name, Program, String, Train
from compiler.passes.pipeline import Pass, check_complete, labels, run_pass, run_pipeline
from compiler.planning.allocations import peaks_outside
from compiler.planning.manifest import describe
from compiler.planning.memory import Plan
from compiler.planning.program import PlacedVariable
from compiler.targets.registry import HOST
from compiler.targets.target import Target, find_target
from compiler.timings import Timings
from runtime.datasets import BUILT_IN
from runtime.program import Executable, Manifest, Settings

Overrides = Sequence[tuple[str, str]]  # keys of the train block and their values as source text
# The stages other than passes, each with the phase that its time counts towards.
PHASES = {"tree": "parse", "graph": "elaborate", "gradient": "differentiate", "optimized": "passes", "plan": "plan"}


@dataclass(frozen=True)
class PlannedModule:
    """A module with an offset for every tensor, ready to be written as source."""

    title: str
    batch: int
    target: Target
    plans: list[Plan]
    variables: list[PlacedVariable]

    @cached_property
    def source(self) -> str:
        return self.target.generate(self.title, self.plans, self.variables)


@dataclass(frozen=True)
class Stage:
    """One stage of a program: `graph`, `plan` …, or the label of a pass."""

    name: str
    content: Program | ElaboratedModel | Module | PlannedModule

    @property
    def module(self) -> Module:
        """Its graphs; none for a tree or a plan."""
        if isinstance(self.content, ElaboratedModel):
            return self.content.module
        return self.content if isinstance(self.content, dict) else {}


@dataclass
class Compilation:
    """All results of compiling one program."""

    tree: Program
    model: ElaboratedModel
    module: Module  # before passes
    optimized: Module
    plans: list[Plan]
    executable: Executable
    manifest: Manifest


def load_tree(
    path: str | Path,
    overrides: Overrides = (),
    model: str | None = None,
    diagnostics: Diagnostics | None = None,
    file: str | None = None,
) -> Program:
    """Reads and parses a file with its imports; raises UserError with all mistakes in case of syntax errors.

    Positions in messages call it `file`, by default its path.
    """
    diagnostics = Diagnostics() if diagnostics is None else diagnostics
    text = read_source(path, diagnostics)
    diagnostics.raise_if_any()
    tree = with_imports(parse(text or "", file or str(path), diagnostics), diagnostics)
    if len(diagnostics):
        check_all(tree, diagnostics)
    diagnostics.raise_if_any()
    return override(tree, overrides, model, diagnostics)


def override(
    tree: Program, overrides: Overrides, model: str | None = None, diagnostics: Diagnostics | None = None
) -> Program:
    """The program with keys of its train blocks replaced: those of `model`, or all."""
    if overrides and not any(model in (None, train.model.id) for train in tree.trains):
        message = f"{tree.file} has no train block, so {overrides[0][0].removeprefix('--')} cannot be overridden"
        raise UserError.plain(message, expected=f"train {model or 'Model'} {{ loss = …; optimizer = … }}", found="none")
    for key, value in overrides:
        entry = read_entry(key, value, Diagnostics() if diagnostics is None else diagnostics)
        trains = tuple(with_entry(t, entry) if model in (None, t.model.id) else t for t in tree.trains)
        tree = replace(tree, trains=trains)
    return tree


def read_entry(key: str, value: str, diagnostics: Diagnostics) -> Entry:
    """The entry `key = value` for a flag: `--batch`, or a key of `--set`."""
    label, name = key if key.startswith("--") else f"--set {key}", key.removeprefix("--").removeprefix("train.")
    before = f"{name} = "
    diagnostics.sources[label] = before + value
    try:
        parsed = parse_expression(" " * len(before) + value, label, Diagnostics())
    except UserError as error:
        raise UserError(error.diagnostics, diagnostics.sources) from None
    return Entry(Name(name, span=Span(label, 1, 1, 1, len(name) + 1)), parsed, span=parsed.span)


def with_entry(train: Train, entry: Entry) -> Train:
    others = tuple(old for old in train.entries if old.key.id != entry.key.id)
    return replace(train, entries=(*others, entry))


# Stages ---------------------------------------------------------------------------------------------------------------


def stages_of_program(
    tree: Program,
    passes: Sequence[Pass] | None = None,
    storage: Mapping[str, Storage] | None = None,
    model: str | None = None,
    diagnostics: Diagnostics | None = None,
    target: str = HOST,
    rows: int | None = None,
) -> Iterator[Stage]:
    """All stages of a program; raises UserError with all its mistakes. It is planned for batches of at most `rows`.

    Stages are made lazily, so that a mistake in a later one does not hide the earlier ones. The next stage may change
    the objects of this one: print it before advancing.
    """
    diagnostics = Diagnostics() if diagnostics is None else diagnostics
    library()
    yield Stage("tree", tree)
    elaborated = elaborate_one(tree, model, storage, diagnostics)
    yield Stage("graph", elaborated)
    module = differentiate_one(elaborated, diagnostics)
    yield Stage("gradient", module)
    batch = elaborated.train.values["batch"] if elaborated.train else Settings().batch
    yield from later_stages(module, passes, title_of(tree, elaborated), batch_of(batch, rows), target)


def batch_of(batch: int, rows: int | None) -> int:
    """The largest batch that occurs: that of the settings, or all rows if there are fewer."""
    return batch if rows is None else min(batch, max(rows, 1))


def later_stages(
    module: Module, passes: Sequence[Pass] | None, title: str, batch: int, target: str = HOST
) -> Iterator[Stage]:
    """The stages of a module after differentiation: each pass, then the plan and the source."""
    chosen = find_target(target)
    passes = chosen.pipeline if passes is None else passes
    for each, label in zip(passes, labels(passes), strict=True):
        module = run_pass(each, module)
        yield Stage(label, module)
    yield Stage("optimized", module)
    check_complete(passes, chosen.pipeline)
    chosen.check(module)
    planned = PlannedModule(title, batch, chosen, *chosen.plan(module, batch))
    yield Stage("plan", planned)
    yield Stage("source", planned)


def compile_tree(
    tree: Program,
    *,
    model: str | None = None,
    storage: Mapping[str, Storage] | None = None,
    passes: Sequence[Pass] | None = None,
    diagnostics: Diagnostics | None = None,
    timings: Timings | None = None,
    target: str = HOST,
    rows: int | None = None,
) -> Compilation:
    """Compiles a parsed program, by default with the target's passes; raises UserError with all its mistakes.

    Memory is planned for the batch of the settings, or for `rows` if the data have fewer.
    """
    chosen = find_target(target)
    passes = chosen.pipeline if passes is None else passes
    check_complete(passes, chosen.pipeline)
    timings = timings or Timings()
    found: dict[str, Stage] = {}
    start = time.perf_counter()
    for stage in stages_of_program(tree, passes, storage, model, diagnostics, target, rows):
        if stage.name in PHASES:
            found[stage.name] = stage
            start = timings.add(PHASES[stage.name], start)
    elaborated, planned = found["graph"].content, found["plan"].content
    assert isinstance(elaborated, ElaboratedModel) and isinstance(planned, PlannedModule)
    module, optimized = found["gradient"].module, found["optimized"].module
    manifest = describe(elaborated, module, optimized, optimizer_of(tree, elaborated.name))
    with timings.phase("generate"):
        executable = executable_of(planned, f"<nnc {elaborated.name}>", tuple(each.name for each in passes))
        host = {name: module[name] for name in chosen.on_host if name in module}
        if host:
            initializer = host_executable(host, planned, f"<nnc {elaborated.name} on the host>")
            executable = replace(executable, initializer=initializer)
    return Compilation(tree, elaborated, module, optimized, planned.plans, executable, manifest)


def executable_of(planned: PlannedModule, name: str, passes: tuple[str, ...] = ()) -> Executable:
    size = max(plan.size for plan in planned.plans)
    outside, starting = peaks_outside(planned.plans, planned.batch, planned.target.allocated)
    target = planned.target.name
    workspace = planned.target.workspace(planned.source)
    return Executable(planned.source, name, size, planned.batch, target, outside, starting, None, passes, workspace)


def host_executable(module: Module, planned: PlannedModule, name: str) -> Executable:
    """The graphs that a target leaves to the host, compiled for the host."""
    host = find_target(HOST)
    plans = host.plan(run_pipeline(module, host.pipeline), planned.batch)
    return executable_of(PlannedModule(planned.title, planned.batch, host, *plans), name)


def compile_file(path: str | Path) -> Compilation:
    """`compile_tree` for a file."""
    diagnostics = Diagnostics()
    return compile_tree(load_tree(path, diagnostics=diagnostics), diagnostics=diagnostics)


# Single stages --------------------------------------------------------------------------------------------------------


def elaborate_one(
    tree: Program, model: str | None, storage: Mapping[str, Storage] | None, diagnostics: Diagnostics
) -> ElaboratedModel:
    """Elaborates one model; if it has mistakes, raises UserError with those of the whole file."""
    elaborated = elaborate(tree, diagnostics, model, storage)
    diagnostics.raise_if_any()
    assert elaborated is not None
    verify_module(elaborated.module, "elaboration")
    return elaborated


def differentiate_one(elaborated: ElaboratedModel, diagnostics: Diagnostics) -> Module:
    """The module with a complete training step; raises UserError."""
    module = differentiate(elaborated, diagnostics)
    diagnostics.raise_if_any()
    verify_module(module, "differentiation")
    return module


def title_of(tree: Program, model: ElaboratedModel) -> str:
    """The first line of the generated source."""
    return f"{tree.file}: model {model.name}, generated by nnc"


def elaborate_models(tree: Program, model: str | None, diagnostics: Diagnostics) -> list[ElaboratedModel]:
    """Elaborates all models of a program, or one; raises UserError with all mistakes."""
    if model is not None:
        return [elaborate_one(tree, model, None, diagnostics)]
    found = check_all(tree, diagnostics)
    diagnostics.raise_if_any()
    return found


def check_models(tree: Program, model: str | None, diagnostics: Diagnostics) -> list[ElaboratedModel]:
    """Elaborates and differentiates them, to find mistakes in optimizers and derivatives as well."""
    found = elaborate_models(tree, model, diagnostics)
    for each in found:
        differentiate(each, diagnostics)
    diagnostics.raise_if_any()
    return found


def data_of(tree: Program, model: str | None) -> str:
    """The data set that the train block names, before elaboration, which then reports mistakes in the entry."""
    trains = [train for train in tree.trains if model in (None, train.model.id)]
    for entry in trains[0].entries if trains else ():
        if entry.key.id == "data" and isinstance(entry.value, String):
            return entry.value.value
        if entry.key.id == "data" and isinstance(entry.value, Name) and entry.value.id in BUILT_IN:
            return entry.value.id
    return Settings().data


def optimizer_of(tree: Program, model: str) -> str:
    """The optimizer as written in the train block of a model."""
    entries = [entry for train in tree.trains if train.model.id == model for entry in train.entries]
    return next((format_expression(entry.value) for entry in entries if entry.key.id == "optimizer"), "")


def resolved_text(compiled: Compilation) -> str:
    """The program as source: imports inlined, all settings spelled out, no train blocks of other models."""
    model, settings = compiled.model.name, asdict(compiled.manifest.settings)
    tree = replace(compiled.tree, trains=tuple(t for t in compiled.tree.trains if t.model.id == model))
    given = {entry.key.id for train in tree.trains for entry in train.entries}
    text = {key: str(value).lower() for key, value in settings.items() if key not in given}
    return format_program(override(tree, tuple(text.items())))
