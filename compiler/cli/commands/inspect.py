"""The commands that show what a program becomes: summary, check, emit, opt, plan, explain-fusion."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from compiler.cli.compiling import chosen_passes, compile_to_train, load_program
from compiler.cli.data import described
from compiler.cli.flags import USER_ERROR
from compiler.cli.programs import find_program, is_ir, names_in, read_number, refuse_ir
from compiler.driver import (
    PlannedModule,
    Stage,
    check_models,
    elaborate_models,
    load_tree,
    resolved_text,
    stages_of_program,
)
from compiler.language.syntax import Program as Tree
from compiler.passes.pipeline import find_label
from compiler.reports.explain_fusion import NO_NAMES, ModelNames, explain
from compiler.reports.plan_report import format_report
from compiler.reports.stages import check_graph, dump, read_ir, show_difference, show_stage, stages_of_module
from compiler.reports.summary import format_summary, totals
from compiler.targets.target import find_target
from runtime.datasets import BUILT_IN
from runtime.errors import RuntimeUserError, quoted
from runtime.training.checkpoint import write_atomically
from runtime.training.run_data import about
from runtime.training.run_folder import program_hash

LARGEST_BATCH = 2**31 - 1
OF_PROGRAMS = ("tree", "gradient")  # stages that IR text does not have
FLAGS_OF_PROGRAMS = {"model": "--model", "data": "--data", "data_dir": "--data-dir", "seed": "--seed", "set": "--set"}


def summary_command(flags: argparse.Namespace) -> None:
    refuse_ir(flags.file, "summary")
    models = elaborate_models(read_tree(flags), flags.model, flags.diagnostics)
    if not models:
        raise RuntimeUserError(f"there is no model in {flags.file}", expected="model Name(x: f32[B, …]) { … }")
    print("\n\n".join(map(format_summary, models)))


def check_command(flags: argparse.Namespace) -> int:
    """Prints errors and warnings; 2 for an error, with --strict also for a warning."""
    if is_ir(flags.file):
        check_ir(flags)
        return 0
    tree = read_tree(flags)
    models = check_models(tree, flags.model, flags.diagnostics)
    for model in models:
        print(f"{flags.file}: {model.name}: no errors, {sum(totals(model)):,} parameters")
    if not models:
        print(f"{flags.file}: {', '.join(f.name.id for f in tree.functions)}: no errors, no model")
    warnings = flags.diagnostics.warning_texts()
    for warning in warnings:
        print(warning, file=sys.stderr)
    return USER_ERROR if warnings and flags.strict else 0


def check_ir(flags: argparse.Namespace) -> None:
    for graph in read_ir(flags.file, flags.diagnostics).values():
        print(f"{flags.file}: graph {graph.name}: no errors, {len(list(graph.walk())):,} nodes")


def emit_command(flags: argparse.Namespace) -> None:
    if flags.standalone:
        emit_standalone(flags)
        return
    passes = chosen_passes(flags)
    wanted = flags.after or flags.diff
    name = find_label(passes, wanted) if wanted else flags.stage
    if name in OF_PROGRAMS and is_ir(flags.file):
        raise RuntimeUserError(f"IR text has no stage {name}", expected="graph, optimized, plan or source", found=name)
    if name == "tree" and flags.graph and not flags.dump_dir:
        raise RuntimeUserError("a syntax tree has no graphs", expected="--graph with a later stage", found=flags.graph)
    stages = all_stages(flags)
    if flags.dump_dir:
        names = dump(stages, flags.dump_dir, flags.graph)
        print("\n".join(str(flags.dump_dir / name) for name in names))
    elif flags.diff:
        print(show_difference(stages, name, flags.graph).rstrip("\n"))
    else:
        print(show_stage(stages, name, flags.graph).rstrip("\n"))


def emit_standalone(flags: argparse.Namespace) -> None:
    """Writes a program that trains the model on its own, on data stored as those of the data set are."""
    refuse_ir(flags.file, "emit --standalone")
    if flags.graph:
        raise RuntimeUserError("a file that trains has all graphs", expected="no --graph", found=flags.graph)
    target = find_target(flags.target)
    if target.standalone is None:
        raise RuntimeUserError("this target has no standalone script", expected="no --target", found=flags.target)
    file = find_program(flags.file)
    tree, data = load_program(file, flags)
    stored = described(data, file, flags)
    compiled = compile_to_train(tree, stored, flags)
    manifest, name = compiled.manifest, flags.standalone.name
    known = (compiled.executable, program_hash(resolved_text(compiled)))
    files = target.standalone(tree.file, manifest, compiled.optimized, data, name, about(stored, manifest), *known)
    for each, content in reversed([*files.items()]):  # what the program needs comes before it
        write_atomically(flags.standalone.with_name(each) if each != name else flags.standalone, content)
    print(flags.standalone)


def opt_command(flags: argparse.Namespace) -> None:
    if flags.list:
        target = find_target(flags.target)
        optional = [each for each, _ in target.optional]
        print("\n\n".join(each.contract for each in dict.fromkeys([*target.pipeline, *optional])))
        return
    if not flags.file:
        raise RuntimeUserError("there is nothing to run passes on", expected="nnc opt FILE.ir --passes …, or --list")
    print(show_stage(all_stages(flags), "optimized", flags.graph).rstrip("\n"))


def plan_command(flags: argparse.Namespace) -> None:
    batches = [read_batch(text) for text in names_in([flags.batch or ""])]
    flags.batch = None
    *_, optimized, plan, _ = all_stages(flags)
    check_graph(plan, flags.graph)
    assert isinstance(plan.content, PlannedModule)
    plans = {batch: find_target(flags.target).plan(optimized.module, batch)[0] for batch in batches}
    print(format_report(plans or {plan.content.batch: plan.content.plans}, flags.graph).rstrip("\n"))


def explain_fusion_command(flags: argparse.Namespace) -> None:
    names = NO_NAMES
    for stage in all_stages(flags):
        if isinstance(stage.content, Tree):
            names = ModelNames.of(stage.content, flags.diagnostics.sources)
        if isinstance(stage.content, PlannedModule):
            check_graph(stage, flags.graph)
            module = {plan.graph.name: plan.graph for plan in stage.content.plans}
            print(explain(module, stage.content.target, names, flags.graph).rstrip("\n"))
            return


# Parts of them --------------------------------------------------------------------------------------------------------


def read_tree(flags: argparse.Namespace) -> Tree:
    """The tree of a file as it is, without the settings of flags."""
    file = find_program(flags.file)
    return load_tree(file.path, diagnostics=flags.diagnostics, file=file.name)


def read_batch(text: str) -> int:
    expected = f"whole numbers from 1 to {LARGEST_BATCH}, as in --batch 64,128"
    return read_number(text, "--batch takes numbers of examples", 1, LARGEST_BATCH, expected)


def all_stages(flags: argparse.Namespace) -> Iterator[Stage]:
    """The stages of a program or of IR text, with the flags applied."""
    passes = chosen_passes(flags)
    if not is_ir(flags.file):
        file = find_program(flags.file)
        tree, data = load_program(file, flags)
        known = data in BUILT_IN or flags.data is not None  # other data sets need not exist to inspect a program
        storage = described(data, file, flags) if known else {}
        return stages_of_program(tree, passes, storage, flags.model, flags.diagnostics, flags.target)
    for name, flag in FLAGS_OF_PROGRAMS.items():
        if getattr(flags, name):
            raise RuntimeUserError(f"{flag} means nothing for IR text", expected="a .nn file", found=quoted(flags.file))
    batch = None if flags.batch is None else read_batch(flags.batch)
    return stages_of_module(read_ir(flags.file, flags.diagnostics), passes, flags.file, batch, flags.target)
