"""The program that a command names: its file, the folder of a run, or a model that comes with nnc; and its settings."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import RuntimeUserError, did_you_mean, quoted

IR, PROGRAM = ".ir", ".nn"
PROGRAM_OF_RUN = "program.nn"
PACKAGE = Path(__file__).resolve().parents[1]
LONGEST_PATH = 1000  # characters of a path for which similar ones are suggested
SHIPPED_FOLDERS = ("models", "examples")


@dataclass(frozen=True)
class ProgramFile:
    """A file of model source, and what messages and generated code call it.

    `run` is the run folder that it is in, or in which it is going to be resumed: arrays mean what they do there.
    """

    path: Path
    name: str
    run: Path | None = None


def find_program(given: str | Path) -> ProgramFile:
    """The program of a run's folder, of a file, or of a shipped model such as `cnn`; what exists as a path comes first.

    Raises RuntimeUserError for a bare name that is none of them. Other paths may not exist: reading them reports that.
    """
    path = Path(given)
    if os.path.exists(inside := path / PROGRAM_OF_RUN):
        return ProgramFile(inside, str(inside), run=path)
    if os.path.exists(path):
        return ProgramFile(path, str(path))
    name, models = str(path), shipped()
    if name in models:
        return ProgramFile(models[name], models[name].name)
    if path.suffix == PROGRAM and path.stem in models:
        hint = f"nnc brings a model of this name: {path.stem}, without folder and suffix"
        raise RuntimeUserError(f"cannot read {path}", expected="a file", found="no such file", hint=hint)
    if path.suffix or path.name != name:
        siblings = map(str, sorted(path.parent.glob(f"*{PROGRAM}"))) if path.suffix == PROGRAM else ()
        if near := did_you_mean(name, siblings, longest=LONGEST_PATH):
            raise RuntimeUserError(f"cannot read {path}", expected="a file", found="no such file", hint=near)
        return ProgramFile(path, name)
    message = f"there is no file, run or model {quoted(name)}"
    expected = f"a .nn file, the folder of a run, or one of {', '.join(models)}"
    raise RuntimeUserError(message, expected=expected, found="no such file", hint=did_you_mean(name, models))


def shipped() -> dict[str, Path]:
    """The models and examples that come with nnc, by name.

    In an installed wheel their folders are inside of the package, in a clone next to it.
    """
    root = PACKAGE if (PACKAGE / SHIPPED_FOLDERS[0]).exists() else PACKAGE.parent
    return {path.stem: path for folder in SHIPPED_FOLDERS for path in sorted((root / folder).glob(f"*{PROGRAM}"))}


def is_ir(path: str | Path) -> bool:
    return Path(path).suffix == IR


def refuse_ir(path: str | Path, command: str) -> None:
    """Raises RuntimeUserError for IR text, which is only part of a program."""
    if is_ir(path):
        raise RuntimeUserError(
            f"{command} needs a program: IR text holds graphs, but no layers, data or settings",
            expected="a .nn file",
            found=quoted(str(path)),
            hint="emit, opt, plan and check take IR text",
        )


def overrides(flags: argparse.Namespace) -> list[tuple[str, str]]:
    """The settings of the train block that flags override, as source text."""
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
        if not flags.data.isprintable():
            raise RuntimeUserError("--data takes a path of printable characters", found=quoted(flags.data))
        text = flags.data.replace("\\", "\\\\").replace('"', '\\"')
        found.append(("--data", f'"{text}"'))
    return found


def read_number(text: str, message: str, least: int, most: int, expected: str = "") -> int:
    """The whole number in a flag; raises RuntimeUserError with the message for anything else."""
    if not text.isdecimal() or not least <= int(text[:20]) <= most:
        raise RuntimeUserError(message, expected=expected or f"from {least} to {most}", found=text[:20])
    return int(text)


def names_in(texts: list[str]) -> list[str]:
    """The names in `a,b c`, given once or several times."""
    return [name for text in texts for name in text.replace(",", " ").split()]
