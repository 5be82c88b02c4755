"""The commands and flags of `nnc`. Mistakes in them are reported in the form of all other errors."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from compiler import __version__
from compiler.targets.registry import HOST, TARGETS
from runtime.errors import RuntimeUserError, did_you_mean, quoted

USER_ERROR = 2  # exit code
STAGES = ("tree", "graph", "gradient", "optimized", "plan", "source")
EMPTY = "empty text"  # of a flag whose value is a path
# Flags that some targets have, and the flag that chooses them:
TARGET_OPTIONS = {"tf32": "--gpu", "no_graph": "--gpu", "threads": "--native"}
TARGET_VARIABLE = "NNC_TARGET"
EXAMPLES = """examples:
  nnc train cnn --data digits --epochs 3               train a model that comes with nnc on built-in data
  nnc train mlp --data-dir ~/mnist                     train on the four MNIST files in a folder
  nnc train my_model.nn --data my_data.npz             train your own model on your own data
  nnc train mlp --set train.optimizer="Adam(lr=1e-3)" --out runs/adam
  nnc train --resume runs/adam --epochs 80             continue a run where it stopped, bit for bit
  nnc train cnn --native                               train with code in C, compiled for this machine
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
ARRAY_HELP = "a .npy file, or a .npz file with an array"


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
        if match := re.fullmatch(rf"argument (.+?): {EMPTY}", message):
            raise RuntimeUserError(f"{match[1]} is {EMPTY}", expected="the name of a file or folder", found='""')
        if match := re.match(r"argument (.+?): not allowed with argument (.+)", message):
            raise RuntimeUserError(f"{match[2]} and {match[1]} exclude each other", expected=usage)
        raise RuntimeUserError(message, expected=usage)


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of a command. Raises RuntimeUserError; prints and exits for --help, --version and no arguments."""
    for word in arguments:
        check_word(word)
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


def check_word(word: str) -> None:
    """Raises RuntimeUserError for text that is not UTF-8, and for `--flag=--`, which argparse takes for no value."""
    name, _, value = word.partition("=")
    if not value.isascii() or not name.isascii():
        try:
            word.encode()
        except UnicodeEncodeError:
            raise RuntimeUserError("an argument is not valid UTF-8", expected="UTF-8", found=quoted(word)) from None
    if name.startswith("--") and value == "--":
        raise RuntimeUserError(f"{name} needs a value", found="--, which ends the flags")


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
        group = command.add_mutually_exclusive_group() if each.exclusive else command
        for names, settings in each.exclusive:
            group.add_argument(*names, **settings)
        for names, settings in each.flags:
            command.add_argument(*names, **settings)
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        command.set_defaults(command=name, usage=usage, target=default_target(), **each.defaults)
    return top


def default_target() -> str:
    """$NNC_TARGET, or the host; raises RuntimeUserError for a target that does not exist."""
    name = os.environ.get(TARGET_VARIABLE) or HOST
    if name not in TARGETS:
        expected, hint = ", ".join(TARGETS), did_you_mean(name, TARGETS)
        raise RuntimeUserError(f"{TARGET_VARIABLE} names no target", expected=expected, found=quoted(name), hint=hint)
    return name


# The flags of each command --------------------------------------------------------------------------------------------

Flag = tuple[tuple[str, ...], dict[str, Any]]  # the arguments of `add_argument`


def flag(*names: str, **settings: Any) -> Flag:
    return names, settings


def switch(name: str, help: str) -> Flag:
    return flag(name, action="store_true", help=help)


def path_of(text: str) -> Path:
    """A path; refuses empty text, which would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError(EMPTY)
    return Path(text)


def program_flags(batch: str = "N") -> tuple[Flag, ...]:
    return (
        MODEL,
        flag("--data", metavar="NAME|PATH", help="mnist, digits, a .npz file or a folder of .npy files"),
        flag("--data-dir", metavar="DIR", help="the folder with the files of a named data set"),
        flag("--batch", metavar=batch, help="examples per step"),
        flag("--seed", metavar="N", help="seed of initial weights, data order and dropout"),
        flag("--set", metavar="KEY=VALUE", action="append", default=[], help="override a setting of the train block"),
    )


def device_flags(more: str = "") -> tuple[Flag, ...]:
    return (
        flag("--gpu", dest="target", action="store_const", const="cupy", help=f"run on an NVIDIA GPU{more}"),
        switch("--tf32", "with --gpu: faster matrix products with less precision"),
        flag("--native", dest="target", action="store_const", const="c", help="run as C, compiled for this machine"),
        flag("--threads", metavar="N", help="with --native: how many threads (default: all processors)"),
    )


IR_FILE = flag("file", metavar="FILE", help=f"{RUN_HELP}; or a .ir file")
MODEL = flag("--model", metavar="NAME", help="which model of the file")
PASSES = (
    flag("--passes", metavar="A,B,…", help="the passes to run, in this order (see nnc opt --list)"),
    flag("--disable", metavar="PASS", action="append", default=[], help="leave out a pass"),
    flag("--enable", metavar="PASS", action="append", default=[], help="add an optional pass"),
)
STAGE = (
    flag("--graph", metavar="NAME", help="only this graph: train_step, evaluate, predict or init"),
    flag("--target", choices=TARGETS, help=f"the kind of code (default: {HOST})"),
    *PASSES,
)
NO_GRAPH = switch("--no-graph", "with --gpu: launch each kernel separately, for debugging")
MEMORY = flag(
    "--memory-limit", metavar="SIZE", help="fail if more memory is needed, as in 2GB (default: the memory that is free)"
)
CHECKPOINT = (  # how to run one
    *PASSES,
    *device_flags(),
    NO_GRAPH,
    MEMORY,
    switch("--best", "use the checkpoint with the lowest test loss instead of the last"),
)
MEASURE = (
    flag("file", metavar="FILE", help=RUN_HELP),
    flag("--steps", metavar="N", default="100", help="how many steps to measure (default: 100)"),
    *STAGE,
    *device_flags(),
    MEMORY,
    *program_flags(),
)
MEASURE_DEFAULTS = {"no_graph": False}  # both ways are measured


@dataclass(frozen=True)
class Command:
    """A command: its line in `--help`, `file:function` in compiler/cli/commands, and its flags."""

    help: str
    function: str  # takes the flags; returns an exit code, or None for 0
    flags: tuple[Flag, ...]
    exclusive: tuple[Flag, ...] = ()  # of which at most one may be given
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of flags that the command does not have


COMMANDS = {
    "train": Command(
        "train a model; a checkpoint is saved every epoch",
        "run:train_command",
        (
            flag("file", metavar="FILE", nargs="?", help=f"{PROGRAM_HELP} (not needed with --resume)"),
            *program_flags(),
            *PASSES,
            *device_flags("; a run started on the CPU can continue here, equal up to rounding"),
            NO_GRAPH,
            MEMORY,
            flag("--epochs", metavar="N", help="how many epochs in total"),
            flag("--out", metavar="DIR", type=path_of, help="the folder of the run (default: runs/MODEL-DATE)"),
            flag("--resume", metavar="DIR", type=path_of, help="continue the run in this folder"),
            switch("--other-data", "with --resume: continue on other data than those of the run"),
            switch("--check-numerics", "check all variables for NaN and Inf after every step"),
            switch("--quiet", "print only warnings and the final summary"),
            switch("--timings", "print how long each phase takes until the first step"),
        ),
    ),
    "eval": Command(
        "loss and metrics on the test data of a run or a new model",
        "run:eval_command",
        (
            flag("file", metavar="RUN|FILE", help=f"the folder of a run; or {PROGRAM_HELP}"),
            *program_flags(),
            *CHECKPOINT,
        ),
    ),
    "predict": Command(
        "outputs of a trained model for an array of inputs",
        "run:predict_command",
        (
            flag("run", metavar="RUN", type=path_of, help="the folder of a run"),
            flag("--input", metavar="X.npy", required=True, help=f"{ARRAY_HELP} per input"),
            flag("--output", metavar="Y.npy", required=True, type=path_of, help=f"{ARRAY_HELP} per output"),
            flag(
                "--seed",
                dest="draw_seed",  # not `seed`, which overrides a setting of the program
                metavar="N",
                help="seed of the random numbers that the model draws (default: that of the run)",
            ),
            *CHECKPOINT,
        ),
        defaults={"model": None, "data": None, "data_dir": None, "set": []},
    ),
    "replay": Command(
        "run a step again that gave NaN or Inf, and name the first bad op",
        "numerics:replay_command",
        (flag("file", metavar="DUMP", type=path_of, help="numerics-EPOCH-STEP.safetensors in the folder of a run"),),
    ),
    "summary": Command(
        "layers, output shapes and parameters",
        "inspect:summary_command",
        (flag("file", metavar="FILE", help=RUN_HELP), MODEL),
    ),
    "check": Command(
        "report all errors in a file, and warnings about likely mistakes",
        "inspect:check_command",
        (IR_FILE, MODEL, switch("--strict", "exit with 2 if there are warnings, as for errors")),
    ),
    "emit": Command(
        "print a stage of compilation, up to the generated code",
        "inspect:emit_command",
        (IR_FILE, *STAGE, *program_flags()),
        exclusive=(
            flag("--stage", choices=STAGES, default="source", help="stage to print (default: source)"),
            flag("--after", metavar="PASS", help="print the graphs after a pass; PASS:1 is its first run"),
            flag("--diff", metavar="PASS", help="print what a pass changes"),
            flag("--dump-dir", metavar="DIR", type=path_of, help="write each stage to a file in a new folder"),
            flag(
                "--standalone",
                metavar="train.py",
                type=path_of,
                help="write one file that trains with NumPy alone, or in C",
            ),
        ),
    ),
    "opt": Command(
        "run passes on IR text and print the result",
        "inspect:opt_command",
        (
            flag("file", metavar="FILE", nargs="?", help=f"a .ir file; or {RUN_HELP}"),
            switch("--list", "print what each pass does"),
            *STAGE,
            *program_flags(),
        ),
    ),
    "plan": Command(
        "memory: how much, when and what for, and which buffers are shared",
        "inspect:plan_command",
        (IR_FILE, *STAGE, *program_flags(batch="N,…")),
    ),
    "profile": Command(
        "time per kernel, compared with the limits of the machine",
        "measure:profile_command",
        (*MEASURE, switch("--inside", "also show the ops inside regions and scans")),
        defaults=MEASURE_DEFAULTS,
    ),
    "annotate": Command(
        "the text of a model, each line with its shapes, kernels, passes and code",
        "measure:annotate_command",
        (*MEASURE, switch("--no-time", "measure nothing: the same output in every run")),
        defaults=MEASURE_DEFAULTS,
    ),
    "explain-fusion": Command(
        "which ops are fused, and why others are not",
        "inspect:explain_fusion_command",
        (IR_FILE, *STAGE, *program_flags()),
    ),
    "verify-resume": Command(
        "prove that a model that is stopped and resumed trains to the same bits",
        "verify:verify_resume_command",
        (
            flag("file", metavar="FILE", help=PROGRAM_HELP),
            flag("--epochs", metavar="N", default="3", help="how many epochs (default: 3)"),
            switch("--kill", "kill the process after each save, instead of stopping it"),
            *program_flags(),
            *PASSES,
            *device_flags(),
            NO_GRAPH,
        ),
    ),
}
