"""What `train` reports and keeps of a step that gave NaN or Inf; imported only when that happens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from compiler.cli.cache import Build
from compiler.cli.compiling import chosen_passes, load_program
from compiler.cli.memory_check import check_main_memory
from compiler.cli.programs import find_program
from compiler.diagnostics import Diagnostics, UserError
from compiler.driver import compile_tree, resolved_text
from compiler.numerics.replay import PROGRAM, Source, Stored, first_report
from compiler.passes.pipeline import Pass
from compiler.targets.registry import HOST
from compiler.targets.running import find_runtime
from compiler.targets.target import find_target
from runtime.datasets import describe
from runtime.errors import RuntimeUserError
from runtime.training.captures import Capture, Recipe, write_dump
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import Diverged


def explain(diverged: Diverged, folder: RunFolder, build: Build, flags: argparse.Namespace) -> None:
    """Writes a dump of the step at which training stopped, and adds to the error what the step shows."""
    if not find_runtime(flags.target).checks_numerics:
        diverged.report = f"nnc train --resume {folder.path} --check-numerics, without --gpu, finds the first bad op"
        return
    capture = diverged.capture
    if capture is None:
        diverged.report = "the epoch was run again and stayed finite: the machine may be at fault"
        return
    path, recipe, lines = folder.path / capture.name, recipe_of(folder, build, flags), []
    try:
        lines.append(report_of(capture, recipe, flags))
    except (RuntimeUserError, UserError) as error:
        lines.append(f"the step could not be run again: {error}")
    try:
        write_dump(path, capture, recipe)
        lines.append(f"nnc replay {path} runs this step again")
    except RuntimeUserError as error:
        lines.append(str(error))
    diverged.report = "\n".join(lines)


def recipe_of(folder: RunFolder, build: Build, flags: argparse.Namespace) -> Recipe:
    """What the program was compiled from."""
    passes = tuple(each.name for each in passes_to_replay(flags))
    scales = build.manifest.scales
    storage = {name: [i.dtype, scales.get(name, 1.0)] for name, i in describe(build.data, flags.data_dir).items()}
    return Recipe(build.text, folder.program_hash, build.manifest.model, passes, storage, build.executable.batch)


def passes_to_replay(flags: argparse.Namespace) -> Sequence[Pass]:
    """The passes of the program, or those of the host if it was compiled for another target."""
    return chosen_passes(flags) if flags.target == HOST else find_target().pipeline


def report_of(capture: Capture, recipe: Recipe, flags: argparse.Namespace) -> str:
    """The first bad op, with lines of the user's file; if that has changed since, of the program as it was trained."""
    storage = {name: Stored(dtype, scale) for name, (dtype, scale) in recipe.storage.items()}
    passes = passes_to_replay(flags)
    tree, _ = load_program(find_program(flags.file or flags.resume), flags)
    compiled = compile_tree(
        tree, model=recipe.model, storage=storage, passes=passes, diagnostics=flags.diagnostics, rows=recipe.rows
    )
    sources = flags.diagnostics.sources
    if resolved_text(compiled) != recipe.text:
        diagnostics = Diagnostics()
        source = Source(recipe, PROGRAM, check_main_memory)
        compiled, sources = source.compile(passes, diagnostics), diagnostics.sources
    return first_report(compiled, capture, sources)
