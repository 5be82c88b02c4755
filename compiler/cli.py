"""The commands. Each one calls the driver and the runtime, and prints; nothing is computed here."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.flags import read_flags
from runtime.errors import RuntimeUserError

if TYPE_CHECKING:
    from compiler.driver import Compilation, Overrides, Timings
    from compiler.language.syntax import Program as Tree
    from runtime.program import Program

USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # exit codes; the last two are 128 + the signal


def run(arguments: Sequence[str], started: float) -> int:
    """Runs one command. User errors go to standard error and exit with 2; signals exit with 128 + their number."""
    gc.disable()  # a compilation makes many objects and little garbage
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may know ASCII alone
    try:
        flags = read_flags(arguments)
        code = run_command(flags, started)
        sys.stdout.flush()
        return code
    except RuntimeUserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output is gone: there is nobody to tell
        drop_output()
        return BROKEN_PIPE
    except OSError as error:  # what reads and writes files tells of its own errors: most likely this is our output
        print(f"error: cannot write {error.filename or 'the output'}\n  found: {error.strerror}", file=sys.stderr)
        drop_output()
        return USER_ERROR


def drop_output() -> None:
    """What is still to be written goes nowhere, so that the interpreter does not try again on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(flags: argparse.Namespace, started: float) -> int:
    from compiler.diagnostics import Diagnostics, UserError
    from runtime.interrupt import Interrupted

    flags.started, flags.diagnostics = started, Diagnostics()
    try:
        COMMANDS[flags.command](flags)
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return 128 + interruption.signal
    return 0


# From flags to a program ----------------------------------------------------------------------------------------------


def overrides(flags: argparse.Namespace) -> list[tuple[str, str]]:
    """The keys of the train block that the flags replace, as source text."""
    found = []
    for text in flags.set:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise RuntimeUserError("--set takes KEY=VALUE", expected="--set train.batch=256", found=text)
        found.append((key.strip(), value))
    for key in ("batch", "epochs", "seed"):
        value = getattr(flags, key, None)
        if value is not None:
            found.append((f"--{key}", value))
    if flags.data is not None:
        quoted = flags.data.replace("\\", "\\\\").replace('"', '\\"')
        found.append(("--data", f'"{quoted}"'))
    return found


def source_of(path: str | Path) -> Path:
    """A file, or the program of a run's folder."""
    program = Path(path) / "program.nn"
    return program if os.path.exists(program) else Path(path)


def load_program(path: Path | str, flags: argparse.Namespace, changes: Overrides) -> tuple[Tree, str]:
    """The tree of a file with the flags applied, and the name of its data set."""
    from compiler.driver import data_of, load_tree

    tree = load_tree(source_of(path), changes, flags.model, flags.diagnostics)
    return tree, data_of(tree, flags.model)


def compile_for(tree: Tree, data: str, flags: argparse.Namespace, timings: Timings | None = None) -> Compilation:
    """Compiles for the way that the data set keeps its arrays, and checks that it has what the model needs."""
    from compiler.driver import compile_tree
    from runtime.datasets import describe
    from runtime.datasets.checks import check

    arrays = describe(data, flags.data_dir)
    compiled = compile_tree(tree, model=flags.model, storage=arrays, diagnostics=flags.diagnostics, timings=timings)
    if compiled.model.train is None:
        raise RuntimeUserError(
            f"{compiled.tree.file}: {compiled.model.name} has no train block",
            expected=f"train {compiled.model.name} {{ loss = …; optimizer = … }}",
            found="none",
        )
    check(arrays, (*compiled.manifest.inputs, *compiled.manifest.targets))
    return compiled


def load_executable(compiled: Compilation) -> Program:
    """The program in memory, if there is enough of it."""
    from compiler.memory_limit import check_memory
    from runtime.program import Program

    check_memory(compiled.model.name, compiled.plans)
    return Program(compiled.executable, compiled.manifest)


def load_data(compiled: Compilation, data: str, flags: argparse.Namespace) -> Any:
    from runtime.datasets import load
    from runtime.datasets.checks import check_values

    manifest = compiled.manifest
    dataset = load(data, flags.data_dir, lambda text: print(text, file=sys.stderr))
    check_values(dataset, (*manifest.inputs, *manifest.targets), manifest.classes)
    return dataset


def load_weights(program: Program, run: Path, best: bool) -> None:
    """The weights of a run's checkpoint, or those that the seed gives."""
    from runtime.checkpoint import load
    from runtime.run_folder import RunFolder

    if os.path.isdir(run):
        folder = RunFolder.open(run)
        load(folder.best if best else folder.last, program)
    elif best:
        raise RuntimeUserError("--best needs a run", expected="the folder of a run", found=str(run))
    else:
        program.initialize(program.manifest.settings.seed)


# Commands -------------------------------------------------------------------------------------------------------------


def train_command(flags: argparse.Namespace) -> None:
    from compiler.driver import Timings, resolved_text
    from runtime.progress import Reporter
    from runtime.run_folder import RunFolder
    from runtime.trainer import train

    if not flags.file and not flags.resume:
        raise RuntimeUserError("there is nothing to train", expected="nnc train FILE, or nnc train --resume DIR")
    if flags.resume and flags.out:
        raise RuntimeUserError("a resumed run stays in its folder", expected="--resume without --out", found="both")
    timings = Timings()
    timings.seconds["import"] = process_age(flags)
    folder = RunFolder.open(flags.resume) if flags.resume else None
    with timings.phase("parse"):
        tree, data = load_program(flags.file or flags.resume, flags, overrides(flags))
    compiled = compile_for(tree, data, flags, timings)
    with timings.phase("load"):
        program = load_executable(compiled)
    with timings.phase("data"):
        dataset = load_data(compiled, data, flags)
    if flags.timings:
        print_timings(program, dataset, timings)
    text = resolved_text(compiled)
    start = folder.resume(program, text) if folder else None
    folder = folder or RunFolder.create(compiled.model.name, text, flags.out)
    gc.freeze()
    gc.enable()
    train(program, dataset, run_folder=folder, reporter=Reporter(flags.quiet), start=start)


def print_timings(program: Program, dataset: Any, timings: Timings) -> None:
    """Runs the first step once, apart from the training that follows, and prints all phases."""
    from runtime.trainer import first_step

    with timings.phase("first step"):
        first_step(program, dataset)
    total = sum(timings.seconds.values())
    for name, seconds in timings.seconds.items():
        print(f"{name:>13}  {seconds * 1e3:8.1f} ms")
    print(f"{'total':>13}  {total * 1e3:8.1f} ms, {(total - timings.seconds['data']) * 1e3:.1f} ms without the data")


def process_age(flags: argparse.Namespace) -> float:
    """Seconds since the process started, where the system tells (to 10 ms), else since our first line ran."""
    try:
        born = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - born
    except (OSError, AttributeError, ValueError, IndexError):
        return time.perf_counter() - flags.started


def eval_command(flags: argparse.Namespace) -> None:
    from runtime.trainer import evaluate

    tree, data = load_program(flags.target, flags, overrides(flags))
    compiled = compile_for(tree, data, flags)
    program = load_executable(compiled)
    load_weights(program, Path(flags.target), flags.best)
    results = evaluate(program, load_data(compiled, data, flags).test)
    print("\t".join(f"{name}: {value:.4f}" for name, value in results.items()))


def predict_command(flags: argparse.Namespace) -> None:
    from compiler.driver import compile_tree, data_of, load_tree
    from runtime.predictions import read_examples, write_outputs
    from runtime.run_folder import RunFolder
    from runtime.trainer import predict

    tree = load_tree(RunFolder.open(flags.run).program, diagnostics=flags.diagnostics)
    compiled = compile_tree(tree, diagnostics=flags.diagnostics)
    program = load_executable(compiled)
    load_weights(program, flags.run, flags.best)
    examples = read_examples(flags.input, compiled.manifest.inputs, data_of(tree, None))
    write_outputs(flags.output, predict(program, examples))


def summary_command(flags: argparse.Namespace) -> None:
    from compiler.driver import elaborate_models, load_tree
    from compiler.summary import format_summary

    tree = load_tree(source_of(flags.file), diagnostics=flags.diagnostics)
    models = elaborate_models(tree, flags.model, flags.diagnostics)
    if not models:
        raise RuntimeUserError(f"there is no model in {flags.file}", expected="model Name(x: f32[B, …]) { … }")
    print("\n\n".join(map(format_summary, models)))


def check_command(flags: argparse.Namespace) -> None:
    from compiler.driver import check_models, load_tree
    from compiler.summary import totals

    tree = load_tree(source_of(flags.file), diagnostics=flags.diagnostics)
    models = check_models(tree, flags.model, flags.diagnostics)
    for model in models:
        print(f"{flags.file}: {model.name} is sound, {sum(totals(model)):,} parameters")
    if not models:
        print(f"{flags.file}: no model, but {', '.join(f.name.id for f in tree.functions)} without mistakes")


def emit_command(flags: argparse.Namespace) -> None:
    from compiler.driver import show_stage
    from runtime.datasets import BUILT_IN, describe

    tree, data = load_program(flags.file, flags, overrides(flags))
    known = data in BUILT_IN or flags.data is not None  # other data sets need not be here to look at a program
    storage = describe(data, flags.data_dir) if known else {}
    print(show_stage(tree, flags.stage, storage, flags.model, flags.diagnostics).rstrip("\n"))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train_command,
    "eval": eval_command,
    "predict": predict_command,
    "summary": summary_command,
    "check": check_command,
    "emit": emit_command,
}
