"""How much memory a program needs, and how much there is.

`compiler.cli.memory_check` compares the two; this part is small, for programs that are in the cache.
"""

from __future__ import annotations

import math
import re
from dataclasses import astuple, dataclass

from compiler.ir.types import BYTES
from compiler.targets.running import find_runtime
from runtime.datasets.dataset import Footprint
from runtime.errors import RuntimeUserError
from runtime.program import Executable, Manifest

COPIES = 2  # of all variables, while a checkpoint is written or read
WAITING = 2  # checkpoints, the last and the best, kept in memory until they are written if not every epoch is saved
ORDERS, INDEX = 2, 8  # of the rows, shuffled and not; bytes of each index
# Measured: the modules that training imports and the stacks of its threads.
MODULES = 2_000_000
UNITS = {"": 1, "B": 1} | {
    f"{p}{b}B": (1024 if b else 1000) ** (n + 1) for n, p in enumerate("KMGT") for b in ("", "i")
}


@dataclass(frozen=True)
class Memory:
    """The memory that a program may use: bytes, or None if the system does not say, and who has or allows them."""

    bytes: int | None
    owner: str  # as in "this machine has"
    note: str = ""  # printed after the number of bytes


@dataclass(frozen=True)
class Peak:
    """The most that a process needs in addition to what it has before its program is allocated, in bytes."""

    tensors: int  # the arena
    data: int = 0  # the data set, as stored
    copies: int = 0  # while data are loaded or a checkpoint is written or read, which never happen at the same time
    outside: int = 0  # of the arena: kept by checks, and allocated by NumPy's functions in so far as it exceeds copies
    code: int = 0  # the generated code and the modules that it needs

    @property
    def total(self) -> int:
        return sum(astuple(self))

    def __str__(self) -> str:
        parts = zip(
            ("tensors", "data", "copies of data or weights", "working space", "code"), astuple(self), strict=True
        )
        listed = ", ".join(f"{in_units(size)} of {what}" for what, size in parts if size)
        return f"{in_units(self.total)}: {listed}"


def memory_of_target(target: str, limit: str | None = None) -> Memory:
    """The memory that is free now where a target's programs run, or what is left of a limit such as "2GB"."""
    runtime = find_runtime(target)
    if limit is None:
        return Memory(runtime.free_bytes(), f"{runtime.device} has", " (free now)")
    used = runtime.used_bytes()
    note = f" (the process already uses {in_units(used)})" if used else ""
    return Memory(max(0, read_size(limit) - used), f"--memory-limit {limit} allows", note)


def read_size(text: str) -> int:
    """The bytes in a text such as "512MB", "1.5 GiB" or "100000"; raises RuntimeUserError for any other text."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?) ?([kKMGT]?i?B|)", text)
    if not match or (unit := match[2].replace("k", "K")) not in UNITS:
        expected = "bytes, or a number with kB, MB, GB or TB, or KiB, MiB, GiB or TiB"
        raise RuntimeUserError("--memory-limit takes a size", expected=expected, found=text[:40], hint="such as 2GB")
    return math.floor(float(match[1]) * UNITS[unit])


def predicted_peak(
    executable: Executable, manifest: Manifest, data: Footprint | None, check_numerics: bool = False
) -> Peak:
    """The memory that a program needs with a data set; without one, arrays are not counted.

    With `check_numerics` a copy of all variables is kept. Initial values, steps and checkpoints need working space and
    copies at different times.
    """
    tensors, runtime = executable.arena_bytes, find_runtime(executable.target)
    if not runtime.in_main_memory:
        return Peak(tensors)
    weights = sum(BYTES[spec.dtype] * math.prod(size or 1 for size in spec.shape) for spec in manifest.variables)
    checkpoints = COPIES + (WAITING if manifest.settings.checkpoint > 1 else 0)
    copies = max(checkpoints * weights, data.loading if data else 0)
    kept = weights if check_numerics else 0
    orders = ORDERS * INDEX * (data.rows or 0) if data else 0
    outside = max(executable.outside_bytes, executable.starting_bytes - tensors - kept, copies) - copies + kept + orders
    outside += executable.workspace_bytes * runtime.threads()
    code = MODULES + runtime.bytes_per_character * len(executable.source)
    return Peak(tensors, data.arrays if data else 0, copies, outside, code)


def check_prediction(executable: Executable, manifest: Manifest, data: Footprint, memory: Memory) -> None:
    """Raises RuntimeUserError if a program needs too much memory to predict from given arrays."""
    peak = predicted_peak(executable, manifest, data)
    if memory.bytes is not None and peak.total > memory.bytes:
        raise RuntimeUserError(
            f"{manifest.model} needs more memory than {memory.owner} to predict {data.rows or 0:,} rows",
            expected=f"at most {in_units(memory.bytes)}{memory.note}",
            found=str(peak),
            hint="split the rows into several files",
        )


def in_units(size: int) -> str:
    """`1.5 GB`."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if value < 1000 or unit == "EB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"
