"""Graphs as C text: compiled in the background, kept by hash, loaded, and called.

A library is a file in a folder of the user (runtime/native/folder.py) whose name is a hash of everything that it
depends on. Its own hash is in a file next to it and is compared before it is loaded; a damaged library is compiled
again.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import RuntimeUserError, quoted, shortened
from runtime.native.compilers import HEADERS, Compiler, candidates, described, first_error
from runtime.native.folder import WITHOUT, cannot_write, library_folder
from runtime.native.threads import available, threads

ALIGNMENT = 64  # bytes, of workspaces
MOST_LIBRARIES = 256
OLD = 3600  # seconds after which a file that a killed process left is removed
INSTALL = "install gcc or clang, or pip install 'nnc-compiler[native]'"
numbers = count()  # for the names of temporary files
running: dict[subprocess.Popen, Path] = {}  # compilers and the files they write, both removed when this process ends


class CompilerFailed(Exception):
    """What a compiler says about a text that it does not compile."""


# Compiling ------------------------------------------------------------------------------------------------------------


def library_of(text: str, compiler: Compiler) -> Path:
    """The file of a compiled text, which is compiled if it is not there or damaged.

    Raises CompilerFailed, or RuntimeUserError if the folder cannot be used.
    """
    folder = library_folder()
    key = hashlib.sha256(f"{compiler.identity()}\0{text}".encode()).hexdigest()[:32]
    path = folder / f"{key}.so"
    if is_whole(path):
        with suppress(OSError):
            os.utime(path)  # the oldest libraries are removed
        return path
    temporary = folder / f".{key}.{os.getpid()}.{next(numbers)}.tmp"
    try:
        compile_text(text, compiler, temporary)
        write_hash(path, hash_of(temporary))
        os.replace(temporary, path)
        tidy(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def compile_text(text: str, compiler: Compiler, library: Path) -> None:
    """Runs the compiler in a session of its own: an interrupted training ends after its step, not in a compiler."""
    pipe, same = subprocess.PIPE, subprocess.STDOUT
    command = compiler.arguments(str(library))
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=same, start_new_session=True) as process:
        running[process] = library
        try:
            output, _ = process.communicate(text.encode())
        finally:
            running.pop(process, None)
    if process.returncode or not library.exists():
        if "No space left on device" in output.decode(errors="replace"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with open(library, "ab"):  # raises OSError if the compiler could not write there
            pass
        raise CompilerFailed(first_error(output) or f"no library and no message, exit code {process.returncode}")


def end_compilers() -> None:
    for process, library in list(running.items()):
        process.kill()
        process.wait()
        library.unlink(missing_ok=True)


atexit.register(end_compilers)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hash_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def is_whole(path: Path) -> bool:
    """Whether a library is there, with the hash that it had when it was compiled."""
    try:
        return hash_file(path).read_text("ascii").strip() == hash_of(path)
    except (OSError, ValueError):
        return False


def write_hash(path: Path, known: str) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{next(numbers)}.hash.tmp")
    temporary.write_text(known + "\n", "ascii")
    os.replace(temporary, hash_file(path))


def tidy(folder: Path) -> None:
    """Removes the oldest libraries, and files that killed processes left."""
    found = []
    for path in folder.glob("*"):
        with suppress(OSError):  # other processes remove files, too
            found.append((path.stat().st_mtime, path))
    found.sort(reverse=True)
    libraries = [path for _, path in found if path.suffix == ".so"]
    left = [path for when, path in found if path.suffix == ".tmp" and when < time.time() - OLD]
    for path in [*libraries[MOST_LIBRARIES:], *map(hash_file, libraries[MOST_LIBRARIES:]), *left]:
        with suppress(OSError):
            path.unlink()


# The compiler and the pool of this process ----------------------------------------------------------------------------


@cache
def find_compiler() -> tuple[Compiler, Path]:
    """The first compiler that compiles the pool of threads, and that library.

    Raises RuntimeUserError if there is none, with what each of them says.
    """
    text = (HEADERS / "pool.c").read_text("utf-8")
    failures = []
    for command in candidates():
        try:
            compiler = described(command)
            return compiler, library_of(text, compiler)
        except (OSError, ValueError, subprocess.SubprocessError, CompilerFailed) as error:
            failures.append(f"{command[0]}: {reason_of(error)}")
    chosen = os.environ.get("CC", "").strip()
    message = "the C compiler in CC does not work" if chosen else "no working C compiler was found"
    expected = "a C compiler: gcc 9, clang 12 or newer, or ziglang"
    hint = f"{'unset CC, ' if chosen else ''}{INSTALL}; {WITHOUT}"
    raise RuntimeUserError(message, expected=expected, found=shortened(failures, 3) or "none", hint=hint)


def reason_of(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return first_error(error.stderr or b"") or f"exit code {error.returncode} when asked for its version"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


@cache
def templates() -> BackgroundCompilation:
    """templates.c, which all graphs call: it is compiled in the background, too."""
    return BackgroundCompilation((HEADERS / "templates.c").read_text("utf-8"))


@cache
def pool() -> Any:
    """nnc_run of pool.c: (function, arena, B, workspaces, workspace bytes, threads) -> 0 or an error number."""
    run = load(find_compiler()[1]).nnc_run
    run.restype = ctypes.c_int
    return run


def load(path: Path, mode: int = ctypes.DEFAULT_MODE) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path), mode)
    except OSError as error:
        raise RuntimeUserError(
            "a compiled program cannot be loaded",
            found=str(error),
            hint=f"the compiler must make programs for this machine; {WITHOUT}",
        ) from None


# Compiling in the background ------------------------------------------------------------------------------------------

turns = threading.Semaphore(available())  # compilers that run at the same time


class BackgroundCompilation:
    """A text that is being compiled. Its result or its error comes when it is asked for."""

    def __init__(self, text: str):
        self.text, self.owner = text, os.getpid()
        self.path: Path | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()
        threading.Thread(target=self.work, name="nnc-compile", daemon=True).start()

    def work(self) -> None:
        with turns:
            self.compile()

    def compile(self) -> None:
        try:
            self.path = library_of(self.text, find_compiler()[0])
        except BaseException as error:  # raised by `result`
            self.error = error
        self.done.set()

    def result(self) -> Path:
        """The library; raises RuntimeUserError."""
        if self.owner != os.getpid() and not self.done.is_set():  # after a fork, without the thread
            self.done, self.owner = threading.Event(), os.getpid()
            self.compile()
        self.done.wait()
        if isinstance(self.error, CompilerFailed):
            raise RuntimeUserError(
                "internal error: the C compiler does not compile a graph",
                found=f"{find_compiler()[0].name}: {self.error}",
                hint=f"try another compiler, as in CC=clang; {WITHOUT}",
            )
        if self.error is not None:
            raise self.error
        assert self.path is not None
        return self.path


# Graphs ---------------------------------------------------------------------------------------------------------------


area = np.zeros(0, np.uint8)


def workspaces(size: int) -> np.ndarray:
    """Bytes for the workspaces of all threads, aligned. Graphs share them, since only one of them runs at a time."""
    global area
    if area.size < size:
        raw = np.zeros(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        area = raw[start : start + size]
    return area


class NativeGraph:
    """A function of C: `graph(arena, B)` runs it on all threads, and returns when they are done.

    Compiling starts at once in the background; the first call waits for it. The same arena and batch again are called
    with the arguments that are already converted.
    """

    def __init__(self, text: str, function: str, workspace_bytes: int):
        self.function = function
        self.workspace_bytes = -(-workspace_bytes // ALIGNMENT) * ALIGNMENT
        find_compiler()  # raises RuntimeUserError before anything is compiled
        templates()
        self.compilation = BackgroundCompilation(text)
        self.arena: np.ndarray | None = None
        self.batch, self.threads = 0, 0
        self.workspaces = area  # those of the last call, which another graph may have replaced by larger ones
        self.run: Callable[[], int] = lambda: 0

    def __call__(self, arena: np.ndarray, B: int) -> None:
        if arena is not self.arena or self.batch != B:
            self.bind(arena, B)
        if status := self.run():
            raise RuntimeUserError(
                f"{self.threads} threads cannot be started", found=os.strerror(status), hint="try --threads 1"
            )

    def bind(self, arena: np.ndarray, B: int) -> None:
        """Converts the arguments of a call; raises RuntimeUserError if the text cannot be compiled."""
        parts = threads()
        self.workspaces = workspaces(self.workspace_bytes * parts)
        function = ctypes.cast(self.address, ctypes.c_void_p)
        places = ctypes.c_void_p(arena.ctypes.data), ctypes.c_long(B), ctypes.c_void_p(self.workspaces.ctypes.data)
        arguments = (function, *places, ctypes.c_long(self.workspace_bytes), ctypes.c_int(parts))
        run = pool()
        self.run = lambda: run(*arguments)
        self.arena, self.batch, self.threads = arena, B, parts

    @property
    def address(self) -> Any:
        try:
            return self.loaded[self.function]
        except AttributeError:
            raise RuntimeUserError(
                "internal error: the text of a graph in C lacks its function", found=f"no {quoted(self.function)}"
            ) from None

    @cached_property
    def loaded(self) -> ctypes.CDLL:
        path = self.compilation.result()
        load_templates()
        return load(path)


@cache
def load_templates() -> ctypes.CDLL:
    """Makes the functions of templates.c known to the libraries that are loaded after it."""
    return load(templates().result(), ctypes.RTLD_GLOBAL)


Graph = NativeGraph  # as programs call it
