"""The commands and flags of `nnc`. Mistakes in them are reported in the form of all other errors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from compiler import __version__
from compiler.targets.registry import HOST, TARGETS
from runtime.errors import RuntimeUserError, did_you_mean

STAGES = ("tree", "graph", "gradient", "optimized", "plan", "source")
TARGET_OPTIONS = {"tf32": "--gpu", "no_graph": "--gpu"}  # flags that some targets have, and the flag that chooses them
EXAMPLES = """examples:
  nnc train cnn --data digits --epochs 3               train a model that comes with nnc on built-in data
  nnc train mlp --data-dir ~/mnist                     train on the four MNIST files in a folder
  nnc train my_model.nn --data my_data.npz             train your own model on your own data
  nnc train mlp --set train.optimizer="Adam(lr=1e-3)" --out runs/adam
  nnc train --resume runs/adam --epochs 80             continue a run where it stopped, bit for bit
  nnc train cnn --gpu                                  train on an NVIDIA GPU
  nnc eval runs/adam                                   loss and metrics of a run on its test data
  nnc predict runs/adam --input X.npy --output Y.npy   outputs for your own arrays
  nnc replay runs/adam/numerics-1-12.safetensors       analyze a step that gave NaN or Inf, op by op
  nnc summary resnet50                                 layers, shapes, parameters
  nnc emit cnn --stage source                          the NumPy code that will run
  nnc emit cnn --diff fusion                           what a pass changes
  nnc emit mlp --standalone train.py                   one file that trains with NumPy alone
  nnc opt step.ir --passes dead-code                   run a pass on IR text
  nnc plan cnn --batch 64,128                          memory, and which tensors need it
  nnc profile cnn --data digits                        where the time of a step goes
  nnc annotate cnn                                     each line of the model with what it becomes
  nnc explain-fusion cnn                               which ops are fused, and why others are not
  nnc verify-resume mlp --data digits                  prove that a resumed run trains to the same bits
"""
PROGRAM_HELP = "a .nn file, or the name of a model that comes with nnc, such as cnn"
RUN_HELP = f"{PROGRAM_HELP}; or the folder of a run"
IR_HELP = f"{RUN_HELP}; or a .ir file"


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
            raise RuntimeUserError(f"required arguments are missing: {match[1]}", expected=usage)
        if match := re.match(r"argument (.+?): expected one argument", message):
            raise RuntimeUserError(f"{match[1]} needs a value", expected=usage, found="none")
        if match := re.match(r"argument (.+?): not allowed with argument (.+)", message):
            raise RuntimeUserError(f"{match[2]} and {match[1]} exclude each other", expected=usage)
        raise RuntimeUserError(message, expected=usage)


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of a command. Raises RuntimeUserError; prints and exits for --help, --version and no arguments."""
    flags, unknown = parser().parse_known_args(arguments or ["--help"])
    flags.arguments = list(arguments)
    if not unknown:
        return flags
    found = next((word for word in unknown if word.startswith("-")), unknown[0])
    if not found.startswith("-"):
        raise RuntimeUserError("there is one argument too many", expected=flags.usage, found=found)
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
    for name, each in COMMANDS.items():
        command = commands.add_parser(name, help=each.help, description=each.help, allow_abbrev=False)
        each.add_flags(command)
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        command.set_defaults(command=name, usage=usage)
    return top


# The flags of each command --------------------------------------------------------------------------------------------


def add_train_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", nargs="?", help=f"{PROGRAM_HELP} (not needed with --resume)")
    add_program_flags(command)
    add_pass_flags(command)
    add_gpu_flags(command, "; a run started on the CPU can continue here, equal up to rounding")
    add_memory_flag(command)
    command.add_argument("--epochs", metavar="N", help="how many epochs in total")
    command.add_argument("--out", metavar="DIR", type=Path, help="the folder of the run (default: runs/MODEL-DATE)")
    command.add_argument("--resume", metavar="DIR", type=Path, help="continue the run in this folder")
    command.add_argument(
        "--check-numerics", action="store_true", help="check all variables for NaN and Inf after every step"
    )
    command.add_argument("--quiet", action="store_true", help="print only the final summary")
    command.add_argument("--timings", action="store_true", help="print how long each phase takes until the first step")


def add_eval_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="RUN|FILE", help=f"the folder of a run; or {PROGRAM_HELP}")
    add_program_flags(command)
    add_pass_flags(command)
    add_gpu_flags(command)
    add_memory_flag(command)
    add_checkpoint_flag(command)


def add_predict_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
    command.add_argument(
        "--input", metavar="X.npy", required=True, help="a .npy file, or a .npz file with an array per input"
    )
    command.add_argument(
        "--output",
        metavar="Y.npy",
        required=True,
        type=Path,
        help="a .npy file, or a .npz file with an array per output",
    )
    add_pass_flags(command)
    add_gpu_flags(command)
    add_memory_flag(command)
    add_checkpoint_flag(command)
    command.set_defaults(model=None, data=None, data_dir=None, set=[])


def add_replay_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file", metavar="DUMP", type=Path, help="numerics-EPOCH-STEP.safetensors in the folder of a run"
    )


def add_summary_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=RUN_HELP)
    add_model_flag(command)


def add_check_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=IR_HELP)
    add_model_flag(command)


def add_emit_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=IR_HELP)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--stage", choices=STAGES, default="source", help="stage to print (default: source)")
    what.add_argument("--after", metavar="PASS", help="print the graphs after a pass; PASS:1 is its first run")
    what.add_argument("--diff", metavar="PASS", help="print what a pass changes")
    what.add_argument("--dump-dir", metavar="DIR", type=Path, help="write each stage to a file in a new folder")
    what.add_argument("--standalone", metavar="train.py", type=Path, help="write one file that trains with NumPy alone")
    add_stage_flags(command)
    add_program_flags(command)


def add_opt_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", nargs="?", help=f"a .ir file; or {RUN_HELP}")
    command.add_argument("--list", action="store_true", help="print what each pass does")
    add_stage_flags(command)
    add_program_flags(command)


def add_plan_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=IR_HELP)
    add_stage_flags(command)
    add_program_flags(command, batch="N,…")


def add_profile_flags(command: argparse.ArgumentParser) -> None:
    add_measure_flags(command)
    command.add_argument("--inside", action="store_true", help="also show the ops inside regions and scans")


def add_annotate_flags(command: argparse.ArgumentParser) -> None:
    add_measure_flags(command)
    command.add_argument("--no-time", action="store_true", help="measure nothing: the same output in every run")


def add_measure_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=RUN_HELP)
    command.add_argument("--steps", metavar="N", default="100", help="how many steps to measure (default: 100)")
    add_stage_flags(command)
    add_device_flags(command)
    add_memory_flag(command)
    add_program_flags(command)
    command.set_defaults(no_graph=False)  # both ways are measured


def add_explain_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=IR_HELP)
    add_stage_flags(command)
    add_program_flags(command)


def add_verify_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help=PROGRAM_HELP)
    command.add_argument("--epochs", metavar="N", default="3", help="how many epochs (default: 3)")
    command.add_argument("--kill", action="store_true", help="kill the process after each save, instead of stopping it")
    add_program_flags(command)
    add_pass_flags(command)
    add_gpu_flags(command)


# Flags that several commands have -------------------------------------------------------------------------------------


def add_stage_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--graph", metavar="NAME", help="only this graph: train_step, evaluate, predict or init")
    command.add_argument("--target", choices=tuple(TARGETS), default=HOST, help=f"the kind of code (default: {HOST})")
    add_pass_flags(command)


def add_pass_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--passes", metavar="A,B,…", help="the passes to run, in this order (see nnc opt --list)")
    command.add_argument("--disable", metavar="PASS", action="append", default=[], help="leave out a pass")
    command.add_argument("--enable", metavar="PASS", action="append", default=[], help="add an optional pass")
    command.set_defaults(target=HOST)


def add_gpu_flags(command: argparse.ArgumentParser, more: str = "") -> None:
    add_device_flags(command, more)
    command.add_argument(
        "--no-graph", action="store_true", help="with --gpu: launch each kernel separately, for debugging"
    )


def add_device_flags(command: argparse.ArgumentParser, more: str = "") -> None:
    command.add_argument("--gpu", dest="target", action="store_const", const="cupy", help=f"run on an NVIDIA GPU{more}")
    command.add_argument("--tf32", action="store_true", help="with --gpu: faster matrix products with less precision")


def add_memory_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="fail if more memory is needed, as in 2GB (default: the memory that is free)",
    )


def add_checkpoint_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--best", action="store_true", help="use the checkpoint with the lowest test loss instead of the last"
    )


def add_program_flags(command: argparse.ArgumentParser, batch: str = "N") -> None:
    add_model_flag(command)
    command.add_argument("--data", metavar="NAME|PATH", help="mnist, digits, a .npz file or a folder of .npy files")
    command.add_argument("--data-dir", metavar="DIR", help="the folder with the files of a named data set")
    command.add_argument("--batch", metavar=batch, help="examples per step")
    command.add_argument("--seed", metavar="N", help="seed of initial weights, data order and dropout")
    command.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override a setting of the train block"
    )


def add_model_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="NAME", help="which model of the file")


@dataclass(frozen=True)
class Command:
    """A command: its line in `--help`, what adds its flags, and `file:function` in compiler/cli/commands."""

    help: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    function: str  # takes the flags; returns an exit code, or None for 0


COMMANDS = {
    "train": Command("train a model; a checkpoint is saved every epoch", add_train_flags, "run:train_command"),
    "eval": Command("loss and metrics on the test data of a run or a new model", add_eval_flags, "run:eval_command"),
    "predict": Command("outputs of a trained model for an array of inputs", add_predict_flags, "run:predict_command"),
    "replay": Command(
        "run a step again that gave NaN or Inf, and name the first bad op", add_replay_flags, "numerics:replay_command"
    ),
    "summary": Command("layers, output shapes and parameters", add_summary_flags, "inspect:summary_command"),
    "check": Command("report all errors in a file", add_check_flags, "inspect:check_command"),
    "emit": Command("print a stage of compilation, up to the generated code", add_emit_flags, "inspect:emit_command"),
    "opt": Command("run passes on IR text and print the result", add_opt_flags, "inspect:opt_command"),
    "plan": Command(
        "memory: how much, when and what for, and which buffers are shared", add_plan_flags, "inspect:plan_command"
    ),
    "profile": Command(
        "time per kernel, compared with the limits of the machine", add_profile_flags, "measure:profile_command"
    ),
    "annotate": Command(
        "the text of a model, each line with its shapes, kernels, passes and code",
        add_annotate_flags,
        "measure:annotate_command",
    ),
    "explain-fusion": Command(
        "which ops are fused, and why others are not", add_explain_flags, "inspect:explain_fusion_command"
    ),
    "verify-resume": Command(
        "prove that a model that is stopped and resumed trains to the same bits",
        add_verify_flags,
        "verify:verify_resume_command",
    ),
}
