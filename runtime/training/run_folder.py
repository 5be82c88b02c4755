"""The folder of a training run: the resolved program, the log, and the checkpoints.

runs/CNN-20250131-120000/
  program.nn            the program as trained, with all settings written out
  data.json             what its arrays mean: how they were stored, scales, ranges (run_data.py)
  log.jsonl             a header for each start of the run, and one line for each epoch
  last.safetensors      the end of the last saved epoch
  previous.safetensors  the epoch saved before it, in case the last one cannot be read
  best.safetensors      the epoch with the lowest loss on the validation rows, or else on the test rows
  damaged.safetensors   only if that happened: the file that could not be read
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

from runtime.datasets.files import reading, reason
from runtime.errors import RuntimeUserError, did_you_mean, quoted, shortened
from runtime.program import LoadedProgram
from runtime.training.checkpoint import OF_ANOTHER_PROGRAM, load, write_atomically
from runtime.training.conditions import changes, conditions, targets_differ
from runtime.training.results import EpochResult, Position, json_line
from runtime.training.run_data import RunData

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

TRAIN_BLOCK = re.compile(r"^train\b.*?^\}", re.MULTILINE | re.DOTALL)
# When a run is resumed, its length and the place of its data may change, but not the computation.
FREE_ENTRY = re.compile(
    r"^[ \t]*(?:(?:data|epochs|patience|checkpoint)[ \t]*=[^;\n]*|validation[ \t]*=[ \t]*none[ \t]*)\n", re.MULTILINE
)  # `validation = none` is written out since rows can be set apart; before, all runs had none

FREE_VALUE = re.compile(r"^[ \t]*(data|epochs|patience|checkpoint)[ \t]*=[ \t]*([^;\n]*)", re.MULTILINE)
LARGEST_PROGRAM = 1_000_000  # bytes, as for every model file
LARGEST_DATA = 1_000_000
LARGEST_LOG = 64_000_000  # bytes: some 200,000 epochs
LONGEST_PATH = 4_096  # characters of a folder for which similar ones are suggested


def program_hash(text: str) -> str:
    """SHA-256 of a resolved program without the entries of its train block that a resumed run may change."""
    return hashlib.sha256(settled(text).encode()).hexdigest()


def settled(text: str) -> str:
    """A resolved program without these entries."""
    return TRAIN_BLOCK.sub(lambda block: FREE_ENTRY.sub("", block.group()), text)


class RunFolder:
    """The folder of one run. `path` is the folder, `text` the resolved program in it."""

    def __init__(self, path: Path, text: str):
        self.path = path
        self.text = text
        self.program = path / "program.nn"
        self.data = path / "data.json"
        self.log = path / "log.jsonl"
        self.last = path / "last.safetensors"
        self.previous = path / "previous.safetensors"
        self.damaged = path / "damaged.safetensors"
        self.best = path / "best.safetensors"

    @property
    def program_hash(self) -> str:
        """The identity of the program, as written into checkpoints and the log."""
        return program_hash(self.text)

    @classmethod
    def create(cls, model: str, text: str, out: Path | None = None, root: Path = Path("runs")) -> RunFolder:
        """A new folder, `out` or `root/MODEL-YYYYmmdd-HHMMSS`, with program.nn in it.

        Raises RuntimeUserError if `out` already has files, or if the folder cannot be made.
        """
        try:
            path = _make_empty(out) if out is not None else _make_dated(root, model)
        except OSError as error:
            raise RuntimeUserError(
                f"cannot make the run folder {quoted(str(error.filename))}",
                found=reason(error),
                hint="choose another with --out",
            ) from error
        folder = cls(path, text)
        write_atomically(folder.program, text.encode())
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run. Raises RuntimeUserError if there is none, or none that can be resumed."""
        folder = cls(path, "")
        if os.path.isfile(path) or not os.path.exists(path):  # unlike Path.exists, false for a name that is too long
            raise RuntimeUserError(f"there is no run folder {quoted(str(path))}", hint=_similar(path))
        checkpoint = folder.last if folder.last.exists() or not folder.previous.exists() else folder.previous
        for file, kind in ((folder.program, "a run folder"), (checkpoint, "a run with a checkpoint to resume from")):
            if not file.exists():
                raise RuntimeUserError(f"{quoted(str(path))} is not {kind}", expected=f"a file {file.name} in it")
        folder.text = _read_text(folder.program, LARGEST_PROGRAM)
        return folder

    def write_data(self, data: RunData) -> None:
        """Writes data.json atomically; raises RuntimeUserError if the disk fails."""
        write_atomically(self.data, data.encoded())

    def read_data(self) -> RunData | None:
        """What its arrays mean; None for a run from before data.json. Raises RuntimeUserError for a damaged file."""
        if not os.path.lexists(self.data):
            return None
        return RunData.decoded(_read_text(self.data, LARGEST_DATA), quoted(str(self.data)))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps other processes from training in the folder; raises RuntimeUserError if one already does.

        The system ends it with the process, however that dies. Where folders cannot be locked nothing is kept out.
        """
        descriptor = None
        try:
            if fcntl is not None:
                descriptor = os.open(self.path, os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)  # type: ignore[arg-type]  # opened, or it could not be locked
            raise RuntimeUserError(
                f"the run {quoted(str(self.path))} is in use: another process is training it",
                hint="wait until that is done, or stop it; eval and predict can read the run meanwhile",
            ) from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            if descriptor is not None:
                with suppress(OSError):
                    os.close(descriptor)

    def restore(self, program: LoadedProgram, program_hash: str | None = None) -> tuple[Path, Position]:
        """Sets `program` to the last checkpoint or, if that cannot be read, to the previous one, with a warning.

        Returns the file and its position. Raises RuntimeUserError for the last one if neither can be used.
        """
        try:
            return self.last, load(self.last, program, program_hash)
        except RuntimeUserError as error:
            try:
                position = load(self.previous, program, program_hash)
            except RuntimeUserError:
                raise error from None
            hint = f"{quoted(str(self.previous))} is used instead, the end of epoch {position.epoch}"
            print(error.as_warning(hint), file=sys.stderr)
            return self.previous, position

    def resume(self, program: LoadedProgram, text: str) -> Position:
        """Sets `program`, compiled from `text`, to the last checkpoint, and makes log and program.nn agree with it.

        Nothing is written if all is well and nothing is left to train. Raises RuntimeUserError, without any change, if
        no checkpoint can be read or they are of another program.
        """
        try:
            used, position = self.restore(program, program_hash(text))
        except RuntimeUserError as error:
            if program_hash(text) != self.program_hash and error.message.endswith(OF_ANOTHER_PROGRAM):
                error.expected, error.found = (shortened(lines, 3) or "no such line" for lines in self._differing(text))
            raise
        if used == self.previous:
            self._set_damaged_aside()
        for leftover in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
            with suppress(OSError):
                leftover.unlink()
        settings = program.manifest.settings
        if position.is_final(settings.epochs, settings.patience):
            self._repair_log(self._lines_until(position))
            return position
        if text != self.text:
            self.text = text
            write_atomically(self.program, text.encode())
        lines, header = self._lines_until(position), self._header(program, position.epoch)
        self._warn_of_changes(lines, header["conditions"])
        write_atomically(self.log, "".join([*lines, json_line(header)]).encode())
        return position

    def changes(self, text: str) -> list[str]:
        """What a program of the same hash has in its train block that the run does not: `epochs 2, now 4`."""
        before, now = (dict(FREE_VALUE.findall("".join(TRAIN_BLOCK.findall(each)))) for each in (self.text, text))
        return [
            f"{key} {before.get(key, 'none')}, now {value}" for key, value in now.items() if before.get(key) != value
        ]

    def _differing(self, text: str) -> tuple[list[str], list[str]]:
        """The lines of the program that only the run has, and those that only the text has."""
        mine, yours = ([" ".join(line.split()) for line in settled(each).splitlines()] for each in (self.text, text))
        return [line for line in mine if line not in yours], [line for line in yours if line not in mine]

    def _repair_log(self, lines: Sequence[str]) -> None:
        text = "".join(lines)
        if not self.log.exists() or _read_text(self.log, LARGEST_LOG, "replace") != text:
            write_atomically(self.log, text.encode())

    def _lines_until(self, position: Position) -> list[str]:
        """The lines of the log up to a position. Epochs come from the checkpoint, so a damaged log is repaired."""
        known = {(result.epoch, False): json_line(result.record) for result in position.history}
        lines = _read_text(self.log, LARGEST_LOG, "replace").splitlines() if self.log.exists() else []
        placed = [(place, f"{line}\n") for line in lines if (place := _place_of(line))[0] <= position.epoch]
        others = [(place, line) for place, line in placed if place not in known]
        return [line for _, line in sorted([*others, *known.items()], key=itemgetter(0))]

    def _set_damaged_aside(self) -> None:
        """Makes the previous checkpoint the last one; else the next save would keep the damaged one as the previous."""
        try:
            with suppress(FileNotFoundError):
                os.replace(self.last, self.damaged)
            os.replace(self.previous, self.last)
        except OSError as error:
            raise RuntimeUserError(f"cannot write {quoted(str(self.last))}", found=reason(error)) from error

    def _warn_of_changes(self, lines: Sequence[str], now: Mapping[str, Any]) -> None:
        """Warns if the run may give other bits now than when it was last started."""
        then = next(filter(None, map(_conditions_of, reversed(lines))), {})
        if changed := changes(then, now):
            how = "under other conditions; last digits may differ"
            if targets_differ(then, now):
                how = "on another target; results are equal up to rounding"
            message = f"{quoted(str(self.path))} continues {how}"
            print(RuntimeUserError(message, found="; ".join(changed)).as_warning(), file=sys.stderr)

    def begin(self, program: LoadedProgram) -> None:
        """Starts the log of a new run."""
        write_atomically(self.log, json_line(self._header(program, 0)).encode())

    def record(self, result: EpochResult) -> None:
        """Adds an epoch to the log."""
        try:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json_line(result.record))
        except OSError as error:
            raise RuntimeUserError(f"cannot write {quoted(str(self.log))}", found=reason(error)) from error

    def _header(self, program: LoadedProgram, epoch: int) -> dict[str, Any]:
        manifest = program.manifest
        return {
            "start_after_epoch": epoch,
            "model": manifest.model,
            "program": self.program_hash,
            "seed": manifest.settings.seed,
            "settings": asdict(manifest.settings),
            "python": platform.python_version(),
            "conditions": conditions(program),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def _make_empty(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise RuntimeUserError(
            f"the run folder {quoted(str(path))} is not empty",
            expected="a new or empty folder",
            hint="continue the run in it with --resume, or choose another folder",
        )
    return path


def _make_dated(root: Path, model: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 100))]
    for name in names:  # for runs that are started in the same second
        try:
            name.mkdir()
            return name
        except FileExistsError:
            continue
    raise RuntimeUserError(
        f"{quoted(str(path))} and {len(names) - 1} more with numbers exist", hint="choose another with --out"
    )


def _similar(path: Path) -> str:
    """A hint for a mistyped folder."""
    siblings = [str(program.parent) for program in sorted(path.parent.glob("*/program.nn"))]
    near = did_you_mean(str(path), siblings, longest=LONGEST_PATH)
    of_file = f"{quoted(str(path))} is a file; training makes the folder of a run, such as runs/MODEL-DATE"
    return near or (
        of_file if os.path.isfile(path) else "the folder of an earlier run is needed, such as runs/MODEL-DATE"
    )


def _read_text(path: Path, largest: int, errors: str = "strict") -> str:
    with reading(str(path), UnicodeDecodeError) as file:
        content = file.read(largest + 1)
        if len(content) > largest:
            raise RuntimeUserError(f"{quoted(str(path))} is too large", expected=f"at most {largest:,} bytes")
        return content.decode(errors=errors)


def _place_of(line: str) -> tuple[float, bool]:
    """The epoch of a line of the log, and whether the line is a start after it; infinite for an incomplete line."""
    try:
        record = json.loads(line)
        return float(record.get("epoch", record.get("start_after_epoch", math.inf))), "epoch" not in record
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return math.inf, False


def _conditions_of(line: str) -> dict[str, Any]:
    """The conditions in a line that is the header of a start; empty for any other line."""
    try:
        found = json.loads(line)["conditions"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
