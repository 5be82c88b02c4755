"""The command line: runs one command and turns errors and signals into messages and exit codes.

A command's module is imported only when the command runs, so that `--help` loads nothing heavy. Inside of such a module
all imports are at the top.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from compiler.cli.flags import COMMANDS, USER_ERROR, read_flags
from compiler.diagnostics import Diagnostics, UserError, excerpt_at
from runtime.errors import IndexOutside, RuntimeUserError
from runtime.training.interrupt import Interrupted

BROKEN_PIPE = 141  # exit code, 128 + the signal


def run(arguments: Sequence[str], started: float) -> int:
    """Runs one command. User errors go to standard error and exit with 2; signals exit with 128 + their number."""
    gc.disable()  # a compilation makes many objects and little garbage
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # some terminals only know ASCII
    try:
        flags = read_flags(arguments)
        code = run_command(flags, started)
        sys.stdout.flush()
        return code
    except RuntimeUserError as error:
        if isinstance(error, IndexOutside):
            error.excerpt = excerpt_at(error.place)
        show_error(error)
        return USER_ERROR
    except KeyboardInterrupt as interruption:
        return 128 + getattr(interruption, "signal", signal.SIGINT)
    except BrokenPipeError:  # whoever read our output is gone
        drop_output()
        return BROKEN_PIPE
    except OSError as error:  # code that reads or writes files reports its own errors: this is most likely our output
        show_error(f"error: cannot write {error.filename or 'the output'}\n  found: {error.strerror}")
        drop_output()
        return USER_ERROR


def open_closed_streams() -> None:
    """Gives a process that was started without standard output or error (`>&-`) streams that discard everything.

    Otherwise Python has None in their place, and the next file that is opened gets their number.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until the process ends


def show_error(error: object) -> None:
    """Prints an error; the exit code is the same if nobody can read it."""
    with suppress(OSError):
        print(error, file=sys.stderr, flush=True)


def drop_output() -> None:
    """Discards output that is not written yet, so that the interpreter does not try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(flags: argparse.Namespace, started: float) -> int:
    """Runs the command that the flags belong to; returns its exit code."""
    flags.started, flags.diagnostics = started, Diagnostics()
    module, _, function = COMMANDS[flags.command].function.partition(":")
    try:
        return getattr(import_module(f"compiler.cli.commands.{module}"), function)(flags) or 0
    except UserError as error:
        show_error(error)
        return USER_ERROR
    except Interrupted as interruption:
        show_error(interruption)
        return 128 + interruption.signal
