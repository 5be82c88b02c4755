"""Numbers that went wrong: what `train` tells of the step that did it, and the command that runs it again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from compiler.cli.commands.programs import chosen_passes, load_program, overrides, source_of
from runtime.errors import RuntimeUserError

if TYPE_CHECKING:
    from compiler.cli.cache import Build
    from runtime.training.captures import Capture, Recipe
    from runtime.training.run_folder import RunFolder
    from runtime.training.trainer import Diverged


def replay_command(flags: argparse.Namespace) -> None:
    from compiler.cli.memory_limit import check_memory, main_memory
    from compiler.numerics.replay import PROGRAM, replay
    from runtime.training.captures import read_dump

    capture, recipe, known = read_dump(flags.file)
    program = flags.file.parent / PROGRAM
    file = str(program) if program.exists() else PROGRAM
    print(replay(capture, recipe, known, file, lambda compiled: check_memory(compiled, main_memory())))


def refuse_checks(flags: argparse.Namespace) -> None:
    """Raises RuntimeUserError for --check-numerics on a GPU."""
    if flags.check_numerics and flags.gpu:
        raise RuntimeUserError(
            "--check-numerics checks every step on the CPU",
            expected="--check-numerics without --gpu",
            found="both",
            hint="a run begun on a GPU goes on on the CPU with --resume DIR --check-numerics, the same within rounding",
        )


def explain(diverged: Diverged, folder: RunFolder, build: Build, flags: argparse.Namespace) -> None:
    """Writes the dump of the step at which training stopped, and adds to the error what is known of it."""
    from compiler.diagnostics import UserError
    from runtime.training.captures import write_dump

    if flags.gpu:
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
    from compiler.cli.commands.run import describe_data, storage_of
    from runtime.training.captures import Recipe

    passes = tuple(each.name for each in chosen_passes(flags))
    storage = storage_of(describe_data(build.data, flags))
    return Recipe(build.text, folder.program_hash, build.manifest.model, passes, storage)


def report_of(capture: Capture, recipe: Recipe, flags: argparse.Namespace) -> str:
    """With lines of the user's file; or, where that has changed meanwhile, of the program as it was trained."""
    from compiler.diagnostics import Diagnostics
    from compiler.driver import compile_tree, resolved_text
    from compiler.numerics.replay import PROGRAM, Source, Stored, first_report

    storage = {name: Stored(dtype, scale) for name, (dtype, scale) in recipe.storage.items()}
    passes = chosen_passes(flags)
    tree, _ = load_program(source_of(flags.file or flags.resume), flags, overrides(flags))
    compiled = compile_tree(tree, model=recipe.model, storage=storage, passes=passes, diagnostics=flags.diagnostics)
    sources = flags.diagnostics.sources
    if resolved_text(compiled) != recipe.text:
        diagnostics = Diagnostics()
        compiled, sources = Source(recipe, PROGRAM).compile(passes, diagnostics), diagnostics.sources
    return first_report(compiled, capture, sources)
