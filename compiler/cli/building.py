"""From a file to a compiled program: from the cache if it is there, else compiled.

What is in the cache needs neither parser nor passes: `compiler.cli.compiling`, which imports them, is imported only for
what has to be compiled.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from compiler.cli.cache import Build, Cache, Key
from compiler.cli.data import check_data, described, located, storage_of
from compiler.cli.devices import checks_numerics, memory_of
from compiler.cli.memory_limit import predicted_peak
from compiler.cli.programs import ProgramFile, names_in, overrides
from compiler.targets.running import find_runtime
from compiler.timings import Timings
from runtime.allowed import RefusedSource, checked_code
from runtime.datasets import footprint
from runtime.native.privacy import not_private


def find_build(
    file: ProgramFile,
    flags: argparse.Namespace,
    timings: Timings | None = None,
    for_data: bool = True,
    rows: int | None = None,
) -> tuple[Build, str]:
    """The compiled program of a file, and a message about the cache: `hit KEY` or `miss, WHY`.

    With `for_data` it is compiled for the storage and the rows of its data set; raises RuntimeUserError if the data set
    does not fit the model. Without, `rows` is the number of examples that are given.
    """
    timings = timings or Timings()
    cache = Cache.of_user()
    with timings.phase("cache"):
        passes = [flags.passes, names_in(flags.disable), names_in(flags.enable)]
        choices = [for_data, overrides(flags), file.name, flags.model, flags.target, *passes]
        key = Key.of(file.path, choices) if cache.folder else None
        entry, message = cache.load(key)
        if entry:
            known = found_data(entry.build, file, flags, for_data)
            reason = why_not_trusted(known, cache) or why_not(known, entry.storage, file, flags, rows)
            if reason:
                entry, message = None, f"miss, {reason}"
    if entry is None:
        with timings.phase("import"):
            from compiler.cli.compiling import compile_entry
        entry = compile_entry(file, flags, timings, for_data, rows)
        cache.store(key, entry)
    return found_data(entry.build, file, flags, for_data), message


def why_not_trusted(build: Build, cache: Cache) -> str:
    """Why an entry with machine code is not used: others could have written it. Empty if it can be used."""
    executables = filter(None, (build.executable, build.executable.initializer))
    if cache.folder is None or not any(find_runtime(each.target).contains_machine_code for each in executables):
        return ""
    reason = not_private(cache.folder)
    return f"in the folder of the cache, {reason}" if reason else ""


def found_data(build: Build, file: ProgramFile, flags: argparse.Namespace, for_data: bool) -> Build:
    """The build with the place of its data, if it is compiled for them."""
    return replace(build, data=located(build.data, file, flags)) if for_data else build


def why_not(
    build: Build,
    storage: Mapping[str, Sequence[Any]] | None,
    file: ProgramFile,
    flags: argparse.Namespace,
    rows: int | None = None,
) -> str:
    """Why an entry of the cache cannot be used; empty if it can."""
    for executable in filter(None, (build.executable, build.executable.initializer)):
        try:
            allowed = find_runtime(executable.target).allowed
            checked_code(executable.source, executable.name, allowed)  # loading it will not check it again
        except RefusedSource as refused:
            return refused.reason
    memory = memory_of(flags).bytes
    data = None if storage is None else footprint(build.data, flags.data_dir, build.manifest.dtypes)
    rows = data.rows if data else rows
    settled = build.manifest.settings.batch if rows is None else min(build.manifest.settings.batch, rows)
    if build.executable.batch < settled or (data and build.executable.batch > settled):
        return "the data set has another number of rows now"
    peak = predicted_peak(build.executable, build.manifest, data, checks_numerics(flags))
    if memory is not None and peak.total > memory:
        return "there is less memory now"
    if storage is not None:
        arrays = described(build.data, file, flags)
        if storage_of(arrays) != storage:
            return "the data set is stored differently now"
        check_data(arrays, build.manifest)
    return ""
