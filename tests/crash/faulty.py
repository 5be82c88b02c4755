"""Runs an `nnc` command in a process in which one input or output call fails, or kills the process.

    python -m tests.crash.faulty '{"root": "DIR", "trace": "FILE"}' train points.nn …
    python -m tests.crash.faulty '{"root": "DIR", "at": 17, "action": "ENOSPC"}' train points.nn …

Every call on a file below the root is counted, by wrappers around Python's functions, which are installed before nnc is
imported; nnc knows nothing of them. The trace has a line for each call: `write run/.last.safetensors.tmp`.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

OF_PATHS = ("open", "mkdir", "unlink", "rmdir", "stat", "scandir", "listdir", "utime")  # the first argument is the path
OF_TWO_PATHS = ("replace", "rename", "link")  # the second argument is counted
OF_DESCRIPTORS = ("fsync", "fstat", "close")
PARTIAL = ("write", "read")  # calls that may do less than requested
ERRORS = ("ENOSPC", "EIO")
Call = Callable[[], Any]


class Faults:
    """Counts calls and makes one of them fail.

    `action` is the name of an error, `short` for half of the bytes, or `before`, `within` or `after`: the process is
    killed at this moment of the call.
    """

    def __init__(self, root: str, at: int = 0, action: str = "", trace: str = "") -> None:
        self.root = os.path.realpath(root)
        self.at, self.action = at, action
        self.trace = os.open(trace, os.O_WRONLY) if trace else None
        self.count = 0

    def name_of(self, path: Any) -> str:
        """The path of a file or descriptor below the root, without parts that differ between runs; else empty."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        whole = os.path.abspath(os.fsdecode(path))
        if not whole.startswith(self.root + os.sep):
            return ""
        return re.sub(r"\.\d+(?=\.tmp$)", "", os.path.relpath(whole, self.root))

    def call(self, kind: str, path: Any, do: Call, half: Call | None = None) -> Any:
        """Runs a call, or makes it fail; `half` does a part of it."""
        name = self.name_of(path)
        if not name:
            return do()
        self.count += 1
        if self.trace is not None:
            os.write(self.trace, f"{kind} {name}\n".encode())
        return self.fail(kind, path, do, half or do) if self.count == self.at else do()

    def fail(self, kind: str, path: Any, do: Call, half: Call) -> Any:
        if self.action == "short":
            return half()
        if self.action in ERRORS:
            if kind == "close":  # the descriptor is closed nevertheless
                do()
            number = getattr(errno, self.action)
            raise OSError(number, os.strerror(number), path if isinstance(path, str) else None)
        if self.action != "before":
            with suppress(OSError):  # of the call itself, as for a file that does not exist any more
                (half if self.action == "within" else do)()
        os.kill(os.getpid(), signal.SIGKILL)


def watched_files(faults: Faults) -> type[io.FileIO]:
    """A class of files whose reads and writes `faults` counts."""

    class File(io.FileIO):
        """A file below Python's buffers."""

        def write(self, data: Any) -> int:
            view = memoryview(data).cast("B")
            half = partial(super().write, view[: len(view) // 2])
            return faults.call("write", self.fileno(), partial(super().write, view), half)

        def readinto(self, buffer: Any) -> int:
            view = memoryview(buffer).cast("B")
            half = partial(super().readinto, view[: max(1, len(view) // 2)])
            return faults.call("read", self.fileno(), partial(super().readinto, view), half)

        def readall(self) -> bytes:
            return faults.call("read", self.fileno(), super().readall)

        def close(self) -> None:
            if self.closed:
                return
            faults.call("close", self.fileno(), super().close)

    return File


def watched_open(faults: Faults) -> Callable[..., Any]:
    open_file, make_file = io.open, watched_files(faults)

    def open_watched(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        if not faults.name_of(file):
            return open_file(file, mode, buffering, *rest, **more)
        opener = more.pop("opener", None)
        make = partial(make_file, file, mode.replace("t", "").replace("b", ""), opener=opener)
        raw = make() if isinstance(file, int) else faults.call("open", file, make)
        if buffering == 0:
            return raw
        buffered = (io.BufferedReader if raw.readable() else io.BufferedWriter)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **more)

    return open_watched


def watched(faults: Faults, name: str, place: int) -> Callable[..., Any]:
    """A function of `os` whose calls are counted; its path or descriptor is the argument at `place`."""
    function = getattr(os, name)

    def call(*given: Any, **more: Any) -> Any:
        return faults.call(name, given[place] if given else ".", partial(function, *given, **more))

    return call


def install(faults: Faults) -> None:
    """Replaces `open` and functions of `os` by versions that `faults` counts."""
    for name in (*OF_PATHS, *OF_DESCRIPTORS):
        setattr(os, name, watched(faults, name, 0))
    for name in OF_TWO_PATHS:
        setattr(os, name, watched(faults, name, 1))
    builtins.open = io.open = watched_open(faults)  # type: ignore[assignment]


if __name__ == "__main__":
    install(Faults(**json.loads(sys.argv[1])))
    del sys.argv[1]
    from compiler.__main__ import main

    sys.exit(main())
