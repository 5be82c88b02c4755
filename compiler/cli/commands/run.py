"""The commands that run a program: train, eval, predict."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.cli.commands.numerics import explain, refuse_checks
from compiler.cli.commands.programs import chosen_passes, load_program, names_in, overrides, refuse_ir, source_of
from runtime.errors import RuntimeUserError

if TYPE_CHECKING:
    from compiler.cli.cache import Build, Entry
    from compiler.cli.memory_limit import Memory
    from compiler.driver import Compilation
    from compiler.language.syntax import Program as Tree
    from compiler.timings import Timings
    from runtime.datasets import ArrayInfo, Footprint
    from runtime.program import LoadedProgram, Manifest
    from runtime.training.run_folder import RunFolder

Arrays = dict[str, "ArrayInfo"]


def train_command(flags: argparse.Namespace) -> None:
    from compiler.timings import Timings
    from runtime.training.progress import Reporter
    from runtime.training.run_folder import RunFolder
    from runtime.training.trainer import Diverged, train

    if not flags.file and not flags.resume:
        raise RuntimeUserError("there is nothing to train", expected="nnc train FILE, or nnc train --resume DIR")
    if flags.resume and flags.out:
        raise RuntimeUserError("a resumed run stays in its folder", expected="--resume without --out", found="both")
    refuse_ir(flags.file or "", "train")
    refuse_checks(flags)
    choose_device(flags)
    timings = Timings()
    timings.seconds["import"] = process_age(flags)
    folder = RunFolder.open(flags.resume) if flags.resume else None
    build, told = find_build(source_of(flags.file or flags.resume), flags, timings)
    with timings.phase("load"):
        program = program_of(build, flags)
    with timings.phase("data"):
        dataset = load_data(build, flags)
    if flags.timings:
        print(f"cache: {told}")
        print_timings(program, dataset, timings)
        print_peak(build, flags)
    start = folder.resume(program, build.text) if folder else None
    folder = folder or RunFolder.create(build.manifest.model, build.text, flags.out)
    gc.freeze()
    gc.enable()
    reporter, checks = Reporter(flags.quiet), flags.check_numerics
    try:
        train(program, dataset, run_folder=folder, reporter=reporter, start=start, check_numerics=checks)
    except Diverged as diverged:
        explain(diverged, folder, build, flags)
        raise


def eval_command(flags: argparse.Namespace) -> None:
    from runtime.training.run_folder import RunFolder
    from runtime.training.trainer import evaluate

    refuse_ir(flags.file, "eval")
    choose_device(flags)
    source = source_of(flags.file)
    build, _ = find_build(source, flags)
    program = program_of(build, flags)
    if source != Path(flags.file):
        load_weights(program, RunFolder.open(Path(flags.file)), flags.best)
    elif flags.best:
        raise RuntimeUserError("--best needs a run", expected="the folder of a run", found=flags.file)
    else:
        program.initialize(build.manifest.settings.seed)
    results = evaluate(program, load_data(build, flags).test)
    print("\t".join(f"{name}: {value:.4f}" for name, value in results.items()))


def predict_command(flags: argparse.Namespace) -> None:
    from runtime.training.predictions import read_examples, write_outputs
    from runtime.training.run_folder import RunFolder
    from runtime.training.trainer import predict

    choose_device(flags)
    build, _ = find_build(RunFolder.open(flags.run).program, flags, for_data=False)
    program = program_of(build, flags)
    load_weights(program, RunFolder.open(flags.run), flags.best)
    examples = read_examples(flags.input, build.manifest.inputs, build.data)
    write_outputs(flags.output, predict(program, examples))


# Where it runs --------------------------------------------------------------------------------------------------------


def choose_device(flags: argparse.Namespace) -> None:
    """Sets the target that the flags ask for; raises RuntimeUserError where there is no GPU to run on."""
    if flags.gpu:
        from runtime.gpu import cuda

        cuda.check()
        cuda.use_tf32(flags.tf32)
        flags.target = "cupy"
        return
    for name, wanted in (("--no-graph", flags.no_graph), ("--tf32", flags.tf32)):
        if wanted:
            raise RuntimeUserError(f"{name} is about the GPU", expected=f"--gpu {name}", found=f"{name} without --gpu")


def memory_of(flags: argparse.Namespace) -> Memory:
    """The memory that a program would run in."""
    from compiler.cli.memory_limit import Memory, main_memory, read_size

    if not flags.gpu:
        return main_memory(flags.memory_limit)
    if flags.memory_limit:
        return Memory(read_size(flags.memory_limit), f"--memory-limit {flags.memory_limit} allows")
    from runtime.gpu import cuda

    return Memory(cuda.free_bytes(), "this GPU has", " that is free")


def program_of(build: Build, flags: argparse.Namespace) -> LoadedProgram:
    """The program in the memory of the machine, or of its GPU."""
    if not flags.gpu:
        from runtime.program import LoadedProgram

        return LoadedProgram(build.executable, build.manifest)
    from runtime.gpu.device_program import DeviceProgram

    return DeviceProgram(build.executable, build.manifest, graphs=not flags.no_graph)


# From a file to a program in memory -----------------------------------------------------------------------------------


def find_build(
    path: Path, flags: argparse.Namespace, timings: Timings | None = None, for_data: bool = True
) -> tuple[Build, str]:
    """The compiled program of a file, from the cache if it is there, and what the cache says.

    With `for_data` it is compiled for the way that its data set keeps arrays; raises RuntimeUserError where the data
    set has not what the model needs.
    """
    from compiler.cli.cache import Cache, Key
    from compiler.timings import Timings

    timings = timings or Timings()
    cache = Cache.of_user()
    with timings.phase("cache"):
        passes = [flags.passes, names_in(flags.disable), names_in(flags.enable)]
        choices = [for_data, overrides(flags), flags.model, flags.target, *passes]
        key = Key.of(path, choices) if cache.folder else None
        entry, told = cache.load(key)
        if entry and (reason := why_not(entry, flags)):
            entry, told = None, f"miss, {reason}"
    if entry is None:
        entry = compile_entry(path, flags, timings, for_data)
        cache.store(key, entry)
    return entry.build, told


def why_not(entry: Entry, flags: argparse.Namespace) -> str:
    """Why an entry that is there cannot be used; empty if it can."""
    from compiler.cli.memory_limit import predicted_peak
    from runtime.allowed import RefusedSource, checked_code

    for executable in filter(None, (entry.build.executable, entry.build.executable.initializer)):
        try:
            checked_code(executable.source, executable.name)  # loading it will not check it again
        except RefusedSource as refused:
            return refused.reason
    build, memory = entry.build, memory_of(flags).bytes
    data = None if entry.storage is None else footprint_of(build.data, flags)
    if memory is not None and predicted_peak(build.executable, build.manifest, data).total > memory:
        return "there is less memory now"
    if entry.storage is not None:
        arrays = describe_data(entry.build.data, flags)
        if storage_of(arrays) != entry.storage:
            return "the data set keeps its arrays in another way"
        check_data(arrays, entry.build.manifest)
    return ""


def compile_entry(path: Path, flags: argparse.Namespace, timings: Timings, for_data: bool) -> Entry:
    """Compiles a file; checks that data and memory suffice."""
    from compiler.cli.cache import Build, Entry, hash_of_file
    from compiler.cli.memory_limit import check_memory
    from compiler.driver import resolved_text

    with timings.phase("parse"):
        tree, data = load_program(path, flags, overrides(flags))
    arrays = describe_data(data, flags) if for_data else None
    compiled = compile_for(tree, arrays, flags, timings)
    check_memory(compiled, memory_of(flags), footprint_of(data, flags) if for_data else None)
    build = Build(compiled.executable, compiled.manifest, resolved_text(compiled), data)
    hashes = {name: hash_of_file(name) for name in flags.diagnostics.sources}  # keys that flags replace are no files
    files = {name: found for name, found in hashes.items() if found}
    return Entry(build, files, None if arrays is None else storage_of(arrays))


def compile_for(
    tree: Tree, arrays: Arrays | None, flags: argparse.Namespace, timings: Timings | None = None
) -> Compilation:
    """Compiles for the way that a data set keeps its arrays, and checks that it has what the model needs."""
    from compiler.driver import compile_tree

    compiled = compile_tree(
        tree,
        model=flags.model,
        storage=arrays,
        passes=chosen_passes(flags),
        diagnostics=flags.diagnostics,
        timings=timings,
        target=flags.target,
    )
    if compiled.model.train is None:
        raise RuntimeUserError(
            f"{compiled.tree.file}: {compiled.model.name} has no train block",
            expected=f"train {compiled.model.name} {{ loss = …; optimizer = … }}",
            found="none",
        )
    if arrays is not None:
        check_data(arrays, compiled.manifest)
    return compiled


def describe_data(data: str, flags: argparse.Namespace) -> Arrays:
    from runtime.datasets import describe

    return describe(data, flags.data_dir)


def footprint_of(data: str, flags: argparse.Namespace) -> Footprint:
    from runtime.datasets import footprint

    return footprint(data, flags.data_dir)


def storage_of(arrays: Arrays) -> dict[str, list[Any]]:
    """What the compiled step depends on."""
    return {name: [info.dtype, info.scale] for name, info in arrays.items()}


def check_data(arrays: Arrays, manifest: Manifest) -> None:
    """Raises RuntimeUserError where the data set has not what the model needs."""
    from runtime.datasets.checks import check

    check(arrays, (*manifest.inputs, *manifest.targets))


def load_data(build: Build, flags: argparse.Namespace) -> Any:
    from runtime.datasets import load
    from runtime.datasets.checks import check_values

    manifest = build.manifest
    dataset = load(build.data, flags.data_dir, lambda text: print(text, file=sys.stderr))
    check_values(dataset, (*manifest.inputs, *manifest.targets), manifest.classes)
    return dataset


def load_weights(program: LoadedProgram, folder: RunFolder, best: bool) -> None:
    """The weights of a run's best checkpoint, or of its last."""
    from runtime.training.checkpoint import load

    if best:
        load(folder.best, program)
    else:
        folder.restore(program)


def print_timings(program: LoadedProgram, dataset: Any, timings: Timings) -> None:
    """Runs the first step once, apart from the training that follows, and prints all phases."""
    from runtime.training.trainer import first_step

    with timings.phase("first step"):
        first_step(program, dataset)
    total = sum(timings.seconds.values())
    for name, seconds in timings.seconds.items():
        print(f"{name:>13}  {seconds * 1e3:8.1f} ms")
    print(f"{'total':>13}  {total * 1e3:8.1f} ms, {(total - timings.seconds['data']) * 1e3:.1f} ms without the data")


def print_peak(build: Build, flags: argparse.Namespace) -> None:
    from compiler.cli.memory_limit import predicted_peak

    print(f"{'memory':>13}  {predicted_peak(build.executable, build.manifest, footprint_of(build.data, flags))}")


def process_age(flags: argparse.Namespace) -> float:
    """Seconds since the process started, where the system tells (to 10 ms), else since our first line ran."""
    try:
        born = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - born
    except (OSError, AttributeError, ValueError, IndexError):
        return time.perf_counter() - flags.started
