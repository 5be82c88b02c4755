"""The commands. Each one parses its flags, calls the driver and the runtime, and prints; nothing is computed here."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler import __version__

if TYPE_CHECKING:
    from compiler.driver import Compilation, Overrides, Timings
    from compiler.language.syntax import Program as Tree
    from runtime.program import Program

STAGES = ("tree", "graph", "gradient", "optimized", "plan", "source")
EXAMPLES = """examples:
  nnc train models/cnn.nn --data digits --epochs 3     train on the built-in data set
  nnc train models/mlp.nn --data-dir ~/mnist           train on the four MNIST files in a folder
  nnc train models/mlp.nn --set train.optimizer="Adam(lr=1e-3)" --out runs/adam
  nnc train --resume runs/adam --epochs 80             go on where a run stopped, bit for bit
  nnc eval runs/adam                                   loss and metrics of a run on its test data
  nnc predict runs/adam --input X.npy --output Y.npy   outputs for one's own arrays
  nnc summary models/cnn.nn                            layers, shapes, parameters
  nnc emit models/cnn.nn --stage source                the NumPy code that will run
"""


def run(arguments: Sequence[str], started: float) -> int:
    """Runs one command. User errors go to standard error and exit with 2; signals exit with 128 + their number."""
    flags = parser().parse_args(arguments)
    from compiler.diagnostics import Diagnostics, UserError
    from runtime.errors import RuntimeUserError
    from runtime.interrupt import Interrupted

    flags.started, flags.diagnostics = started, Diagnostics()
    try:
        flags.command(flags)
    except (UserError, RuntimeUserError) as error:
        print(error, file=sys.stderr)
        return 2
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return 128 + interruption.signal
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output is gone: there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        "nnc",
        description="A compiler for neural networks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"nnc {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, function: Any, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(command=function)
        return added

    train = command("train", train_command, "train a model; every epoch is saved")
    train.add_argument("file", nargs="?", help="a .nn file (not needed with --resume)")
    add_program_flags(train)
    train.add_argument("--epochs", type=str, help="how many epochs in all")
    train.add_argument("--out", metavar="DIR", type=Path, help="the run's folder (default: runs/MODEL-DATE)")
    train.add_argument("--resume", metavar="DIR", type=Path, help="go on with the run in this folder")
    train.add_argument("--quiet", action="store_true", help="print the final summary alone")
    train.add_argument("--timings", action="store_true", help="print how long each phase takes up to the first step")

    evaluate = command(
        "eval", eval_command, "loss and metrics on the test data, of a run or of a model's first weights"
    )
    evaluate.add_argument("target", metavar="RUN|FILE")
    add_program_flags(evaluate)
    evaluate.add_argument("--best", action="store_true", help="the checkpoint with the lowest test loss, not the last")

    predict = command("predict", predict_command, "the outputs of a trained model for an array of inputs")
    predict.add_argument("run", metavar="RUN", type=Path)
    predict.add_argument("--input", metavar="X.npy", required=True, help=".npy, or .npz with an array per input")
    predict.add_argument(
        "--output", metavar="Y.npy", required=True, type=Path, help=".npy, or .npz with an array per output"
    )
    predict.add_argument("--best", action="store_true", help="the checkpoint with the lowest test loss, not the last")

    for name, function, help in (
        ("summary", summary_command, "layers, output shapes and parameters"),
        ("check", check_command, "report every mistake in a file"),
    ):
        added = command(name, function, help)
        added.add_argument("file")
        added.add_argument("--model", metavar="NAME")

    emit = command("emit", emit_command, "print what the program is at a stage of its way")
    emit.add_argument("file")
    emit.add_argument("--stage", choices=STAGES, default="source")
    add_program_flags(emit)
    return top


def add_program_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="NAME", help="which model of the file")
    command.add_argument("--data", metavar="NAME|PATH", help="mnist, digits, a .npz file or a folder of .npy files")
    command.add_argument("--data-dir", metavar="DIR", help="where the files of a named data set are")
    command.add_argument("--batch", type=str, help="examples per step")
    command.add_argument("--seed", type=str, help="of initial weights, order of the data and dropout")
    command.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="replace a key of the train block"
    )


# From flags to a program -----------------------------------------------------------------------------------------------


def overrides(flags: argparse.Namespace) -> list[tuple[str, str]]:
    """The keys of the train block that the flags replace, as source text."""
    from compiler.diagnostics import UserError

    found = []
    for text in flags.set:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError.plain("--set takes KEY=VALUE", expected="--set train.batch=256", found=text)
        found.append((key.strip(), value))
    for key in ("batch", "epochs", "seed"):
        value = getattr(flags, key, None)
        if value is not None:
            found.append((key, value))
    if flags.data is not None:
        quoted = flags.data.replace("\\", "\\\\").replace('"', '\\"')
        found.append(("data", f'"{quoted}"'))
    return found


def load_program(path: Path | str, flags: argparse.Namespace, changes: Overrides) -> tuple[Tree, str]:
    """The tree of a file with the flags applied, and the name of its data set."""
    from compiler.driver import data_of, load_tree

    tree = load_tree(path, changes, flags.model, flags.diagnostics)
    return tree, data_of(tree, flags.model)


def compile_for(tree: Tree, data: str, flags: argparse.Namespace, timings: Timings | None = None) -> Compilation:
    """Compiles for the way that the data set keeps its arrays, and checks that it has what the model needs."""
    from compiler.driver import compile_tree
    from runtime.datasets import describe
    from runtime.datasets.checks import check

    arrays = describe(data, flags.data_dir)
    compiled = compile_tree(tree, model=flags.model, storage=arrays, diagnostics=flags.diagnostics, timings=timings)
    check(arrays, (*compiled.manifest.inputs, *compiled.manifest.targets))
    return compiled


def load_data(compiled: Compilation, data: str, flags: argparse.Namespace) -> Any:
    from runtime.datasets import load
    from runtime.datasets.checks import check_values

    manifest = compiled.manifest
    dataset = load(data, flags.data_dir, lambda text: print(text, file=sys.stderr))
    check_values(dataset, (*manifest.inputs, *manifest.targets), manifest.classes)
    return dataset


def need_training(compiled: Compilation) -> None:
    from compiler.diagnostics import UserError

    if compiled.model.train is None:
        raise UserError.plain(
            f"{compiled.tree.file}: {compiled.model.name} has no train block",
            expected=f"train {compiled.model.name} {{ loss = …; optimizer = … }}",
            found="none",
        )


# Commands --------------------------------------------------------------------------------------------------------------


def train_command(flags: argparse.Namespace) -> None:
    from compiler.diagnostics import UserError
    from compiler.driver import Timings, resolved_text
    from runtime.program import Program
    from runtime.progress import Reporter
    from runtime.run_folder import RunFolder
    from runtime.trainer import train

    if not flags.file and not flags.resume:
        raise UserError.plain("there is nothing to train", expected="nnc train FILE, or nnc train --resume DIR")
    timings = Timings()
    timings.seconds["import"] = process_age(flags)
    folder = RunFolder.open(flags.resume) if flags.resume else None
    with timings.phase("parse"):
        tree, data = load_program(flags.file or folder.program, flags, overrides(flags))  # type: ignore[union-attr]
    compiled = compile_for(tree, data, flags, timings)
    need_training(compiled)
    with timings.phase("load"):
        program = Program(compiled.executable, compiled.manifest)
    with timings.phase("data"):
        dataset = load_data(compiled, data, flags)
    if flags.timings:
        print_timings(program, dataset, timings)
    text = resolved_text(compiled)
    start = folder.resume(program, text) if folder else None
    folder = folder or RunFolder.create(compiled.model.name, text, flags.out)
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
    from runtime.program import Program
    from runtime.trainer import evaluate

    run = Path(flags.target)
    source = run / "program.nn" if run.is_dir() else run
    tree, data = load_program(source, flags, overrides(flags))
    compiled = compile_for(tree, data, flags)
    need_training(compiled)
    program = Program(compiled.executable, compiled.manifest)
    load_weights(program, run, flags)
    results = evaluate(program, load_data(compiled, data, flags).test)
    print("\t".join(f"{name}: {value:.4f}" for name, value in results.items()))


def load_weights(program: Program, run: Path, flags: argparse.Namespace) -> None:
    """The weights of a run's checkpoint, or those that the seed gives."""
    from runtime.checkpoint import load
    from runtime.run_folder import RunFolder

    if not run.is_dir():
        return program.initialize(program.manifest.settings.seed)
    folder = RunFolder.open(run)
    load(folder.best if flags.best else folder.last, program)


def predict_command(flags: argparse.Namespace) -> None:
    from compiler.driver import compile_tree, data_of, load_tree
    from runtime.predictions import read_examples, write_outputs
    from runtime.program import Program
    from runtime.run_folder import RunFolder
    from runtime.trainer import predict

    tree = load_tree(RunFolder.open(flags.run).program)
    compiled = compile_tree(tree)
    program = Program(compiled.executable, compiled.manifest)
    load_weights(program, flags.run, flags)
    examples = read_examples(flags.input, compiled.manifest.inputs, data_of(tree, None))
    write_outputs(flags.output, predict(program, examples))


def summary_command(flags: argparse.Namespace) -> None:
    from compiler.driver import elaborate_models, load_tree
    from compiler.summary import format_summary

    print(
        "\n\n".join(
            format_summary(model)
            for model in elaborate_models(
                load_tree(flags.file, diagnostics=flags.diagnostics), flags.model, flags.diagnostics
            )
        )
    )


def check_command(flags: argparse.Namespace) -> None:
    from compiler.driver import elaborate_models, load_tree
    from compiler.summary import totals

    for model in elaborate_models(load_tree(flags.file, diagnostics=flags.diagnostics), flags.model, flags.diagnostics):
        print(f"{flags.file}: {model.name} is sound, {sum(totals(model)):,} parameters")


def emit_command(flags: argparse.Namespace) -> None:
    from compiler.driver import show_stage
    from runtime.datasets import BUILT_IN, describe

    tree, data = load_program(flags.file, flags, overrides(flags))
    known = data in BUILT_IN or flags.data is not None  # other data sets need not be here to look at a program
    storage = describe(data, flags.data_dir) if known else {}
    print(show_stage(tree, flags.stage, storage, flags.model, flags.diagnostics).rstrip("\n"))
