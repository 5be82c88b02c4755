"""The commands that say what became of a program, and how long it takes: profile, annotate, explain-fusion."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from compiler.cli.commands.inspect import all_stages
from compiler.cli.commands.programs import chosen_passes, load_program, overrides, refuse_ir, source_of
from compiler.cli.commands.run import choose_device, memory_of
from runtime.errors import RuntimeUserError

if TYPE_CHECKING:
    from compiler.driver import Compilation
    from runtime.datasets import Dataset

TRAINING, PREDICTION = "train_step", "predict"  # the graph that is meant where none is named: the first there is
MOST_STEPS = 1_000_000


def profile_command(flags: argparse.Namespace) -> None:
    from compiler.reports.profile import format_profile, profile

    choose_what_is_measured(flags)
    compiled, dataset = prepare(flags, "profile")
    graph = chosen_graph(compiled, flags.graph)
    measured = profile(compiled, graph, dataset, read_steps(flags.steps), flags.inside)
    print(format_profile(measured).rstrip("\n"))


def annotate_command(flags: argparse.Namespace) -> None:
    from compiler.reports.annotate import annotate, format_annotations

    choose_what_is_measured(flags, with_time=not flags.no_time)
    compiled, dataset = prepare(flags, "annotate", with_data=not flags.no_time)
    graph = chosen_graph(compiled, flags.graph)
    steps = None if flags.no_time else read_steps(flags.steps)
    annotations = annotate(compiled, graph, chosen_passes(flags), dataset, steps)
    print(format_annotations(annotations, compiled.tree, flags.diagnostics.sources).rstrip("\n"))


def explain_fusion_command(flags: argparse.Namespace) -> None:
    from compiler.driver import PlannedModule
    from compiler.language.syntax import Program
    from compiler.reports.explain_fusion import NO_NAMES, ModelNames, explain
    from compiler.reports.stages import check_graph

    names = NO_NAMES
    for stage in all_stages(flags):
        if isinstance(stage.content, Program):
            names = ModelNames.of(stage.content, flags.diagnostics.sources)
        if isinstance(stage.content, PlannedModule):
            check_graph(stage, flags.graph)
            module = {plan.graph.name: plan.graph for plan in stage.content.plans}
            print(explain(module, stage.content.target, names, flags.graph).rstrip("\n"))
            return


# Parts of them --------------------------------------------------------------------------------------------------------


def choose_what_is_measured(flags: argparse.Namespace, with_time: bool = True) -> None:
    """Sets the target; raises RuntimeUserError for one that cannot be run here."""
    choose_device(flags)
    if with_time and flags.target == "cupy" and not flags.gpu:
        raise RuntimeUserError("code for a GPU is measured on one", expected="--gpu", found="--target cupy without it")


def prepare(flags: argparse.Namespace, command: str, with_data: bool = True) -> tuple[Compilation, Dataset | None]:
    """The program compiled for its data set, and the data; none where they are not here and nobody asked for them."""
    from compiler.cli.memory_limit import check_memory
    from compiler.driver import compile_tree
    from runtime.datasets import BUILT_IN, describe, footprint, is_here, load
    from runtime.datasets.checks import check, check_values

    refuse_ir(flags.file, command)
    tree, data = load_program(source_of(flags.file), flags, overrides(flags))
    asked = flags.data is not None or flags.data_dir is not None
    here = asked or is_here(data)
    storage = describe(data, flags.data_dir) if here or data in BUILT_IN else {}
    compiled = compile_tree(
        tree,
        model=flags.model,
        storage=storage,
        passes=chosen_passes(flags),
        diagnostics=flags.diagnostics,
        target=flags.target,
    )
    size = footprint(data, flags.data_dir) if with_data and here else None
    check_memory(compiled, memory_of(flags), size)
    specs = (*compiled.manifest.inputs, *compiled.manifest.targets)
    if not (with_data and here):
        return compiled, None
    try:
        check(storage, specs)
    except RuntimeUserError:
        if asked:
            raise
        return compiled, None
    dataset = load(data, flags.data_dir, lambda text: print(text, file=sys.stderr))
    check_values(dataset, specs, compiled.manifest.classes)
    return compiled, dataset


def chosen_graph(compiled: Compilation, wanted: str | None) -> str:
    """The graph that is asked for; raises UserError where there is none of this name."""
    from compiler.driver import Stage
    from compiler.reports.stages import check_graph

    check_graph(Stage("optimized", compiled.optimized), wanted)
    return wanted or (TRAINING if TRAINING in compiled.optimized else PREDICTION)


def read_steps(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:20]) <= MOST_STEPS:
        raise RuntimeUserError("--steps takes a number of steps", expected=f"from 1 to {MOST_STEPS}", found=text[:20])
    return int(text)
