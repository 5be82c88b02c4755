"""Compiling a program as the flags say: settings, passes, the storage of its data, and a check of the memory."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from compiler.cli.cache import Build, CacheEntry, hash_of_file
from compiler.cli.data import check_data, described, located, storage_of
from compiler.cli.devices import checks_numerics, memory_of
from compiler.cli.memory_check import check_memory
from compiler.cli.programs import ProgramFile, names_in, overrides
from compiler.driver import Compilation, compile_tree, data_of, load_tree, resolved_text
from compiler.language.syntax import Program as Tree
from compiler.passes.pipeline import Pass, choose, with_optional
from compiler.targets.target import find_target
from compiler.timings import Timings
from runtime.datasets import footprint
from runtime.datasets.dataset import ArrayInfo
from runtime.errors import RuntimeUserError


def load_program(file: ProgramFile, flags: argparse.Namespace) -> tuple[Tree, str]:
    """The tree of a file with the flags applied, and the name of its data set."""
    tree = load_tree(file.path, overrides(flags), flags.model, flags.diagnostics, file.name)
    return tree, data_of(tree, flags.model)


def chosen_passes(flags: argparse.Namespace) -> tuple[Pass, ...]:
    """The passes of --passes, or those of the target and of --enable; without those of --disable."""
    only = None if flags.passes is None else names_in([flags.passes])
    target = find_target(flags.target)
    passes = with_optional(target.pipeline, target.optional, names_in(flags.enable))
    return choose(passes, only, names_in(flags.disable))


def compile_entry(
    file: ProgramFile, flags: argparse.Namespace, timings: Timings, for_data: bool, rows: int | None = None
) -> CacheEntry:
    """Compiles a file for the cache; checks that its data fit the model and that memory suffices.

    Without data, `rows` is the number of examples that are given.
    """
    with timings.phase("parse"):
        tree, data = load_program(file, flags)
    arrays = described(data, file, flags) if for_data else None
    place = located(data, file, flags) if for_data else data
    size = footprint(place, flags.data_dir) if for_data else None
    compiled = compile_to_train(tree, arrays, flags, timings, size.rows if size else rows)
    size = size and footprint(place, flags.data_dir, compiled.manifest.dtypes)
    check_memory(compiled, memory_of(flags), size, checks_numerics(flags))
    text, warnings = resolved_text(compiled), flags.diagnostics.warning_texts()
    build = Build(compiled.executable, compiled.manifest, text, data, warnings)
    paths = (str(file.path) if name == file.name else name for name in flags.diagnostics.sources)
    files = {path: found for path in paths if (found := hash_of_file(path))}  # settings of flags are no files
    return CacheEntry(build, files, None if arrays is None else storage_of(arrays))


def compile_with_flags(
    tree: Tree,
    arrays: Mapping[str, ArrayInfo] | None,
    flags: argparse.Namespace,
    timings: Timings | None = None,
    rows: int | None = None,
) -> Compilation:
    """Compiles a program for the storage of a data set, and for at most its rows in a batch."""
    return compile_tree(
        tree,
        model=flags.model,
        storage=arrays,
        passes=chosen_passes(flags),
        diagnostics=flags.diagnostics,
        timings=timings,
        target=flags.target,
        rows=rows,
    )


def compile_to_train(
    tree: Tree,
    arrays: Mapping[str, ArrayInfo] | None,
    flags: argparse.Namespace,
    timings: Timings | None = None,
    rows: int | None = None,
) -> Compilation:
    """The same for a program that has a train block; checks that the data set fits the model."""
    compiled = compile_with_flags(tree, arrays, flags, timings, rows)
    if compiled.model.train is None:
        raise RuntimeUserError(
            f"{compiled.tree.file}: {compiled.model.name} has no train block",
            expected=f"train {compiled.model.name} {{ loss = …; optimizer = … }}",
            found="none",
        )
    if arrays is not None:
        check_data(arrays, compiled.manifest)
    return compiled
