"""The commands that run a program: train, eval, predict."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from compiler.cli.building import find_build
from compiler.cli.cache import Build
from compiler.cli.data import (
    checked_data_of_run,
    data_to_train,
    described,
    load_data,
    split_seed,
    warn_of_changed_data,
    warn_of_former_rule,
    warn_of_values,
)
from compiler.cli.devices import choose_device, memory_of, program_of
from compiler.cli.memory_limit import check_prediction, predicted_peak
from compiler.cli.programs import find_program, read_number, refuse_ir
from compiler.targets.registry import HOST
from compiler.targets.running import find_runtime
from compiler.timings import Timings
from runtime.datasets import footprint
from runtime.datasets.arrays import rows_of
from runtime.datasets.dataset import Dataset
from runtime.errors import RuntimeUserError, quoted
from runtime.native.compilers import candidates
from runtime.program import LoadedProgram
from runtime.training.checkpoint import load
from runtime.training.predictions import prediction_footprint, read_examples, write_outputs
from runtime.training.progress import Reporter, data_line, results_text, source_of_test
from runtime.training.results import Summary
from runtime.training.run_data import about
from runtime.training.run_folder import RunFolder
from runtime.training.trainer import Diverged, evaluate, first_step, predict, train

LONG = 30  # seconds of a training after which faster code is suggested
LARGEST_SEED = 2**31 - 1  # as in a train block
FEWEST_ROWS = 4096  # to predict: what is compiled for them serves all smaller inputs


def train_command(flags: argparse.Namespace) -> None:
    check_train_flags(flags)
    choose_device(flags)
    timings = Timings()
    timings.seconds["import"] = process_age(flags)
    if flags.resume:
        folder = RunFolder.open(flags.resume)
        with folder.in_use():
            train_in(folder, flags, timings)
    else:
        train_in(None, flags, timings)


def train_in(folder: RunFolder | None, flags: argparse.Namespace, timings: Timings) -> None:
    """Compiles and trains in the folder of an earlier run, or in a new one."""
    file = find_program(flags.file or flags.resume)
    if folder:
        file = replace(file, run=folder.path)
        warn_of_former_rule(file)
    build, cached = find_build(file, flags, timings)
    if flags.file:  # a run that is resumed printed them when it started
        print_warnings(build.warnings)
    with timings.phase("load"):
        program = program_of(build, flags)
    with timings.phase("data"):
        dataset, stored = load_data(build.data, build.manifest, flags, file), described(build.data, file, flags)
        known = data_to_train(dataset, stored, file, build, folder, flags)
    if flags.timings:
        print(f"cache: {cached}")
        print_timings(program, dataset, timings)
        print_peak(build, flags)
    changes = folder.changes(build.text) if folder else []
    start = folder.resume(program, build.text) if folder else None
    folder = folder or RunFolder.create(build.manifest.model, build.text, flags.out)
    settings, reporter = build.manifest.settings, Reporter(flags.quiet)
    reporter.data(data_line(dataset, split_seed(build.manifest, file), about(stored, build.manifest)))
    if start is None or not start.is_final(settings.epochs, settings.patience):
        if known and known != folder.read_data():
            folder.write_data(known)
        if start and changes:
            reporter.data(f"continues after epoch {start.epoch} with {'; '.join(changes)}")
    gc.freeze()
    gc.enable()
    try:
        with nullcontext() if start else folder.in_use():  # one that is resumed already is
            checks = flags.check_numerics
            summary = train(program, dataset, run_folder=folder, reporter=reporter, start=start, check_numerics=checks)
        if hint := hint_at_native(flags.target, summary):
            reporter.data(hint)
    except Diverged as diverged:
        from compiler.cli.divergence import explain  # here, since it imports the compiler

        explain(diverged, folder, build, flags)
        raise


def hint_at_native(target: str, summary: Summary) -> str:
    """A line about --native after a long training as NumPy code, if there is a C compiler; empty otherwise."""
    if target != HOST or summary.trained * summary.seconds_per_epoch < LONG or not any(candidates()):
        return ""
    return "with --native the same program runs as C, compiled for this machine; it is usually faster"


def check_train_flags(flags: argparse.Namespace) -> None:
    """Raises RuntimeUserError for flags that do not go together."""
    if not flags.file and not flags.resume:
        raise RuntimeUserError("there is nothing to train", expected="nnc train FILE, or nnc train --resume DIR")
    if flags.resume and flags.out:
        raise RuntimeUserError("a resumed run stays in its folder", expected="--resume without --out", found="both")
    if flags.other_data and not flags.resume:
        raise RuntimeUserError(
            "--other-data belongs to --resume", expected="--resume DIR --other-data", found="no --resume"
        )
    refuse_ir(flags.file or "", "train")
    if flags.check_numerics and not find_runtime(flags.target).checks_numerics:
        raise RuntimeUserError(
            "--check-numerics checks every step on the CPU",
            expected="--check-numerics without --gpu",
            found="both",
            hint="--resume DIR --check-numerics continues a run of a GPU on the CPU, equal up to rounding",
        )


def eval_command(flags: argparse.Namespace) -> None:
    refuse_ir(flags.file, "eval")
    choose_device(flags)
    file = find_program(flags.file)
    if os.path.isdir(file.path):
        RunFolder.open(file.path)  # this says what it lacks
    warn_of_former_rule(file)
    build, _ = find_build(file, flags)
    program = program_of(build, flags)
    weights = f"initial weights of seed {build.manifest.settings.seed}"
    if file.run:
        weights = load_weights(program, RunFolder.open(Path(flags.file)), flags.best)
    elif flags.best:
        raise RuntimeUserError("--best needs a run", expected="the folder of a run", found=flags.file)
    else:
        program.initialize(build.manifest.settings.seed)
    known, dataset = checked_data_of_run(file, build.manifest), load_data(build.data, build.manifest, flags, file)
    warn_of_changed_data(known, dataset, build, flags)
    warn_of_values(known, {"test": dataset.test}, build.manifest)
    results = evaluate(program, dataset.test)
    print(results_text(results))
    source = source_of_test(dataset, split_seed(build.manifest, file))
    print(f"{len(dataset.test):,} test examples of {quoted(build.data)}{source}, {weights}")


def predict_command(flags: argparse.Namespace) -> None:
    seed = None if flags.draw_seed is None else read_number(flags.draw_seed, "--seed is not valid", 0, LARGEST_SEED)
    choose_device(flags)
    folder = RunFolder.open(flags.run)
    if os.path.exists(flags.output) and os.path.exists(flags.input) and os.path.samefile(flags.input, flags.output):
        raise RuntimeUserError("--output would overwrite --input", expected="two files", found=quoted(flags.input))
    rows = max(rows_of(flags.input), FEWEST_ROWS)
    file = find_program(folder.path)
    warn_of_former_rule(file)
    build, _ = find_build(file, flags, for_data=False, rows=rows)
    needed = prediction_footprint(flags.input, build.manifest)
    check_prediction(build.executable, build.manifest, needed, memory_of(flags))
    program = program_of(build, flags)
    load_weights(program, folder, flags.best)
    examples = read_examples(flags.input, build.manifest.inputs, checked_data_of_run(file, build.manifest), build.data)
    write_outputs(flags.output, predict(program, examples, seed))


# Parts of them --------------------------------------------------------------------------------------------------------


def load_weights(program: LoadedProgram, folder: RunFolder, best: bool) -> str:
    """Loads the weights of a run's best checkpoint, or of its last; returns which these are."""
    path, position = (folder.best, load(folder.best, program)) if best else folder.restore(program)
    better = position.best_epoch if 0 < position.best_epoch < position.epoch else 0
    watched = "test" if program.manifest.settings.validation is None else "validation"
    hint = f"; --best takes epoch {better}, which has the lowest {watched} loss" if better else ""
    return f"epoch {position.epoch} ({path.name}){hint}"


def print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(warning, file=sys.stderr)


def print_timings(program: LoadedProgram, dataset: Dataset, timings: Timings) -> None:
    """Runs the first step once, apart from the training that follows, and prints all phases."""
    with timings.phase("first step"):
        first_step(program, dataset)
    total = sum(timings.seconds.values())
    for name, seconds in timings.seconds.items():
        print(f"{name:>13}  {seconds * 1e3:8.1f} ms")
    print(f"{'total':>13}  {total * 1e3:8.1f} ms, {(total - timings.seconds['data']) * 1e3:.1f} ms without the data")


def print_peak(build: Build, flags: argparse.Namespace) -> None:
    data = footprint(build.data, flags.data_dir, build.manifest.dtypes)
    print(f"{'memory':>13}  {predicted_peak(build.executable, build.manifest, data, flags.check_numerics)}")


def process_age(flags: argparse.Namespace) -> float:
    """Seconds since the process started, where the system tells (to 10 ms), else since our first line ran."""
    try:
        born = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - born
    except (OSError, AttributeError, ValueError, IndexError):
        return time.perf_counter() - flags.started
