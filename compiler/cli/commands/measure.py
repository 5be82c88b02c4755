"""The commands that measure a program, or show what became of each line of it: profile, annotate."""

from __future__ import annotations

import argparse
from contextlib import suppress

from compiler.cli.compiling import chosen_passes, compile_with_flags, load_program
from compiler.cli.data import check_data, described, load_data, located
from compiler.cli.devices import choose_device, memory_of
from compiler.cli.memory_check import check_memory
from compiler.cli.programs import find_program, read_number, refuse_ir
from compiler.driver import Compilation, Stage
from compiler.reports.annotate import annotate, format_annotations
from compiler.reports.profile import format_profile, profile
from compiler.reports.stages import check_graph
from runtime.datasets import BUILT_IN, footprint, is_here
from runtime.datasets.dataset import Dataset
from runtime.errors import RuntimeUserError

TRAINING, PREDICTION = "train_step", "predict"  # the graph that is measured by default: the first of them that exists
MOST_STEPS = 1_000_000


def profile_command(flags: argparse.Namespace) -> None:
    choose_device(flags)
    compiled, dataset = prepare(flags, "profile")
    graph = chosen_graph(compiled, flags.graph)
    measured = profile(compiled, graph, dataset, read_steps(flags.steps), flags.inside)
    print(format_profile(measured).rstrip("\n"))


def annotate_command(flags: argparse.Namespace) -> None:
    if not flags.no_time:
        choose_device(flags)
    compiled, dataset = prepare(flags, "annotate", to_run=not flags.no_time)
    graph = chosen_graph(compiled, flags.graph)
    steps = None if flags.no_time else read_steps(flags.steps)
    annotations = annotate(compiled, graph, chosen_passes(flags), dataset, steps)
    print(format_annotations(annotations, compiled.tree, flags.diagnostics.sources).rstrip("\n"))


# Parts of them --------------------------------------------------------------------------------------------------------


def prepare(flags: argparse.Namespace, command: str, to_run: bool = True) -> tuple[Compilation, Dataset | None]:
    """The program compiled for its data set, and the data; None if no flag names them and they are not available."""
    refuse_ir(flags.file, command)
    file = find_program(flags.file)
    tree, data = load_program(file, flags)
    with suppress(RuntimeUserError):  # of a run whose data are not needed here
        data = located(data, file, flags)
    asked = flags.data is not None or flags.data_dir is not None
    here = asked or is_here(data)
    arrays = described(data, file, flags) if here or data in BUILT_IN else {}
    size = footprint(data, flags.data_dir) if here else None
    compiled = compile_with_flags(tree, arrays, flags, rows=size.rows if size else None)
    if to_run:
        check_memory(compiled, memory_of(flags), size and footprint(data, flags.data_dir, compiled.manifest.dtypes))
    if not (to_run and here):
        return compiled, None
    try:
        check_data(arrays, compiled.manifest)
    except RuntimeUserError:
        if asked:
            raise
        return compiled, None
    return compiled, load_data(data, compiled.manifest, flags, file)


def chosen_graph(compiled: Compilation, wanted: str | None) -> str:
    """The graph that the flags name, or the default; raises UserError if there is no graph of this name."""
    check_graph(Stage("optimized", compiled.optimized), wanted)
    return wanted or (TRAINING if TRAINING in compiled.optimized else PREDICTION)


def read_steps(text: str) -> int:
    return read_number(text, "--steps takes a number of steps", 1, MOST_STEPS)
