"""Reads files that may contain anything: only regular files are opened, every failure becomes a RuntimeUserError."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import numpy as np

from runtime.cpu.free_memory import installed
from runtime.errors import RuntimeUserError, quoted

# O_NONBLOCK: opening a FIFO must not wait for its other end; it means nothing to regular files.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
UNKNOWN_MEMORY = 64 << 30  # bytes that are assumed if the system does not say
BLOCK = 1 << 20  # elements that are read and converted at once


Check = Callable[[int, np.ndarray, np.ndarray], None]


class Readable(Protocol):
    """A source of values: a file, or the unzipped bytes of one."""

    def read(self, size: int = ..., /) -> bytes: ...


@contextmanager
def reading(path: str, *damage: type[Exception]) -> Iterator[BinaryIO]:
    """Opens a regular file for reading bytes.

    An OSError, EOFError or one of `damage` that is raised inside the block means that the file is damaged; it becomes a
    RuntimeUserError with the path.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise RuntimeUserError(f"{quoted(path)} cannot be opened", found=reason(error)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise RuntimeUserError(f"{quoted(path)} cannot be read", expected="a regular file", found=kind_of(mode))
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except (OSError, EOFError, *damage) as error:
            raise RuntimeUserError(
                f"{quoted(path)} cannot be read", expected="a whole, undamaged file", found=reason(error)
            ) from error


def reason(error: Exception) -> str:
    """The reason of a failure, in one line of at most 200 characters."""
    text = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in str(text)[:200])


def kind_of(mode: int) -> str:
    """The kind of a file that is not a regular file."""
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for is_kind, kind in kinds if is_kind(mode)), "a device")


def read_values(
    stream: Readable, count: int, stored: np.dtype, dtype: np.dtype, where: str, check: Check | None = None
) -> np.ndarray:
    """Reads `count` values of dtype `stored` as an array [count] of `dtype`.

    `check` is called with each block: the position of its first value, the stored and the converted values. Raises
    RuntimeUserError if the stream ends too soon or the array does not fit in memory; `where` is the name of the array
    in the message.
    """
    try:
        values = np.empty(count, dtype)
    except MemoryError as error:
        needed = gibibytes(count * dtype.itemsize)
        raise RuntimeUserError(f"not enough memory for {where}", expected=f"{needed} free") from error
    for start in range(0, count, BLOCK):
        wanted = min(BLOCK, count - start) * stored.itemsize
        data = stream.read(wanted)
        if len(data) < wanted:
            total = count * stored.itemsize
            got = start * stored.itemsize + len(data)
            raise RuntimeUserError(
                f"{where} is truncated", expected=f"{total:,} bytes of values", found=f"{got:,} bytes"
            )
        part = np.frombuffer(data, stored)
        converted = values[start : start + len(part)]
        with np.errstate(all="ignore"):
            converted[...] = part
        if check:
            check(start, part, converted)
    return values


def check_memory(size: int, where: str) -> None:
    """Raises RuntimeUserError, before anything is allocated, for more bytes than the machine has memory."""
    limit = installed() or UNKNOWN_MEMORY
    if size > limit:
        raise RuntimeUserError(
            f"{where} does not fit in memory", expected=f"at most {gibibytes(limit)}", found=gibibytes(size)
        )


def user_cache(name: str) -> str:
    """A folder for files that can be made again: $XDG_CACHE_HOME/nnc/NAME, or ~/.cache/nnc/NAME."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the standard says that relative paths are ignored
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "nnc", name)


def gibibytes(size: int) -> str:
    """A size in a form that is easy to read."""
    return f"{size / 2**30:,.2f} GiB"
