"""The commands and flags of `nnc`, and mistakes in them, told in the form of all other errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from compiler import __version__
from runtime.errors import RuntimeUserError, did_you_mean

STAGES = ("tree", "graph", "gradient", "optimized", "plan", "source")
TARGETS = ("numpy", "cupy")
EXAMPLES = """examples:
  nnc train models/cnn.nn --data digits --epochs 3     train on the built-in data set
  nnc train models/mlp.nn --data-dir ~/mnist           train on the four MNIST files in a folder
  nnc train models/mlp.nn --set train.optimizer="Adam(lr=1e-3)" --out runs/adam
  nnc train --resume runs/adam --epochs 80             go on where a run stopped, bit for bit
  nnc train models/cnn.nn --gpu                        train on an NVIDIA GPU
  nnc eval runs/adam                                   loss and metrics of a run on its test data
  nnc predict runs/adam --input X.npy --output Y.npy   outputs for one's own arrays
  nnc replay runs/adam/numerics-1-12.safetensors       a step that gave NaN or Inf, op by op
  nnc summary models/cnn.nn                            layers, shapes, parameters
  nnc emit models/cnn.nn --stage source                the NumPy code that will run
  nnc emit models/cnn.nn --diff fusion                 what a pass changes
  nnc emit models/mlp.nn --standalone train.py         one file that trains with NumPy alone
  nnc opt step.ir --passes dead-code                   a pass on IR text
  nnc plan models/cnn.nn --batch 64,128                memory, and who needs it
  nnc profile models/cnn.nn --data digits              where the time of a step goes
  nnc annotate models/cnn.nn                           each line of the model with what became of it
  nnc explain-fusion models/cnn.nn                     what runs as one, and why not more
  nnc verify-resume models/mlp.nn --data digits        stopped and resumed, it trains to the same bits
"""


class Parser(argparse.ArgumentParser):
    """Raises RuntimeUserError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        if match := re.match(r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            where, found, choices = match[1], match[2], match[3].replace("'", "")
            message = f"there is no command {found}" if where == "COMMAND" else f"{where} cannot be {found}"
            hint = did_you_mean(found, choices.split(", "))
            raise RuntimeUserError(message, expected=choices, found=found, hint=hint)
        if match := re.match(r"the following arguments are required: (.*)", message):
            raise RuntimeUserError(f"something is missing: {match[1]}", expected=usage)
        if match := re.match(r"argument (.+?): expected one argument", message):
            raise RuntimeUserError(f"{match[1]} needs a value", expected=usage, found="none")
        if match := re.match(r"argument (.+?): not allowed with argument (.+)", message):
            raise RuntimeUserError(f"{match[2]} and {match[1]} exclude each other", expected=usage)
        raise RuntimeUserError(message, expected=usage)


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of a command; raises RuntimeUserError, or exits after --help and --version."""
    flags, unknown = parser().parse_known_args(arguments)
    flags.arguments = list(arguments)
    if not unknown:
        return flags
    found = next((word for word in unknown if word.startswith("-")), unknown[0])
    if not found.startswith("-"):
        raise RuntimeUserError("this is one argument too many", expected=flags.usage, found=found)
    known = re.findall(r"--[a-z0-9-]+", flags.usage)
    hint = did_you_mean(found.partition("=")[0], known)
    raise RuntimeUserError(f"{flags.command} has no flag {found}", expected=", ".join(known), found=found, hint=hint)


def parser() -> argparse.ArgumentParser:
    top = Parser(
        "nnc",
        description="A compiler for neural networks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"nnc {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name, (help, add_flags) in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        add_flags(command)
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        command.set_defaults(command=name, usage=usage)
    return top


def add_train_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", nargs="?", help="a .nn file (not needed with --resume)")
    add_program_flags(command)
    add_pass_flags(command)
    add_gpu_flags(command, "; a run begun elsewhere goes on, the same within rounding")
    add_memory_flag(command)
    command.add_argument("--epochs", metavar="N", help="how many epochs in all")
    command.add_argument("--out", metavar="DIR", type=Path, help="the run's folder (default: runs/MODEL-DATE)")
    command.add_argument("--resume", metavar="DIR", type=Path, help="go on with the run in this folder")
    command.add_argument(
        "--check-numerics", action="store_true", help="check all variables after every step for NaN and Inf"
    )
    command.add_argument("--quiet", action="store_true", help="print the final summary alone")
    command.add_argument("--timings", action="store_true", help="print how long each phase takes up to the first step")


def add_eval_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="RUN|FILE")
    add_program_flags(command)
    add_pass_flags(command)
    add_gpu_flags(command)
    add_memory_flag(command)
    add_checkpoint_flag(command)


def add_predict_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", type=Path)
    command.add_argument("--input", metavar="X.npy", required=True, help=".npy, or .npz with an array per input")
    command.add_argument(
        "--output", metavar="Y.npy", required=True, type=Path, help=".npy, or .npz with an array per output"
    )
    add_pass_flags(command)
    add_gpu_flags(command)
    add_memory_flag(command)
    add_checkpoint_flag(command)
    command.set_defaults(model=None, data=None, data_dir=None, set=[])


def add_replay_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="DUMP", type=Path, help="numerics-EPOCH-STEP.safetensors of a run's folder")


def add_summary_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE")
    command.add_argument("--model", metavar="NAME", help="which model of the file")


def add_emit_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="a .nn file, the folder of a run, or a .ir file")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--stage", choices=STAGES, default="source", help="how far (default: source)")
    what.add_argument("--after", metavar="PASS", help="as a pass leaves it; PASS:1 is the first of several")
    what.add_argument("--diff", metavar="PASS", help="what a pass changes")
    what.add_argument("--dump-dir", metavar="DIR", type=Path, help="every stage as a file of a new folder")
    what.add_argument("--standalone", metavar="train.py", type=Path, help="one file that trains with NumPy alone")
    add_looking_flags(command)
    add_program_flags(command)


def add_opt_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", nargs="?", help="a .ir file, or a .nn file with its gradients")
    command.add_argument("--list", action="store_true", help="print what each pass does")
    add_looking_flags(command)
    add_program_flags(command)


def add_plan_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="a .nn file, the folder of a run, or a .ir file")
    add_looking_flags(command)
    add_program_flags(command, batch="N,…")


def add_profile_flags(command: argparse.ArgumentParser) -> None:
    add_measured_flags(command)
    command.add_argument("--inside", action="store_true", help="also what is inside of regions and scans")


def add_annotate_flags(command: argparse.ArgumentParser) -> None:
    add_measured_flags(command)
    command.add_argument("--no-time", action="store_true", help="only what is the same in every run")


def add_measured_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="a .nn file, or the folder of a run")
    command.add_argument("--steps", metavar="N", default="100", help="how many steps to measure (default: 100)")
    add_looking_flags(command)
    add_device_flags(command)
    add_memory_flag(command)
    add_program_flags(command)
    command.set_defaults(no_graph=False)  # both ways are measured


def add_explain_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="a .nn file, the folder of a run, or a .ir file")
    add_looking_flags(command)
    add_program_flags(command)


def add_verify_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="a .nn file")
    command.add_argument("--epochs", metavar="N", default="3", help="how many epochs (default: 3)")
    command.add_argument(
        "--kill", action="store_true", help="kill the process after each save, in place of stopping it"
    )
    add_program_flags(command)
    add_pass_flags(command)
    add_gpu_flags(command)


def add_looking_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--graph", metavar="NAME", help="train_step, evaluate, predict or init alone")
    command.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="what code is made for")
    add_pass_flags(command)


def add_pass_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--passes", metavar="A,B,…", help="the passes to run, in this order (see nnc opt --list)")
    command.add_argument("--disable", metavar="PASS", action="append", default=[], help="leave out a pass")
    command.add_argument("--enable", metavar="PASS", action="append", default=[], help="add an optional pass")
    command.set_defaults(target=TARGETS[0])


def add_gpu_flags(command: argparse.ArgumentParser, more: str = "") -> None:
    add_device_flags(command, more)
    command.add_argument(
        "--no-graph", action="store_true", help="with --gpu: each kernel by itself, to look for errors"
    )


def add_device_flags(command: argparse.ArgumentParser, more: str = "") -> None:
    command.add_argument("--gpu", action="store_true", help=f"run on an NVIDIA GPU{more}")
    command.add_argument("--tf32", action="store_true", help="with --gpu: quicker products, less exact")


def add_memory_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--memory-limit", metavar="SIZE", help="refuse what needs more, as in 2GB (default: what is free)"
    )


def add_checkpoint_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument("--best", action="store_true", help="the checkpoint with the lowest test loss, not the last")


def add_program_flags(command: argparse.ArgumentParser, batch: str = "N") -> None:
    command.add_argument("--model", metavar="NAME", help="which model of the file")
    command.add_argument("--data", metavar="NAME|PATH", help="mnist, digits, a .npz file or a folder of .npy files")
    command.add_argument("--data-dir", metavar="DIR", help="where the files of a named data set are")
    command.add_argument("--batch", metavar=batch, help="examples per step")
    command.add_argument("--seed", metavar="N", help="of initial weights, order of the data and dropout")
    command.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="replace a key of the train block"
    )


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "train": ("train a model; every epoch is saved", add_train_flags),
    "eval": ("loss and metrics on the test data, of a run or of a model's first weights", add_eval_flags),
    "predict": ("the outputs of a trained model for an array of inputs", add_predict_flags),
    "replay": ("run a step again that gave NaN or Inf, and name the first bad op", add_replay_flags),
    "summary": ("layers, output shapes and parameters", add_summary_flags),
    "check": ("report every mistake in a file", add_summary_flags),
    "emit": ("print what the program is at a stage of its way", add_emit_flags),
    "opt": ("run passes on IR text and print what they leave", add_opt_flags),
    "plan": ("memory: how much, when, what for, and what is shared", add_plan_flags),
    "profile": ("time by kernel, beside what the machine does at best", add_profile_flags),
    "annotate": ("the model's text, each line with its shapes, kernels, passes and code", add_annotate_flags),
    "explain-fusion": ("what runs as one, and why neighbours do not", add_explain_flags),
    "verify-resume": ("prove that a model, stopped and resumed, trains to the same bits", add_verify_flags),
}
