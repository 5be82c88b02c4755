"""The command line: runs a command, and tells of what went wrong with an exit code. Nothing is computed here."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence

from compiler.cli.flags import read_flags
from runtime.errors import RuntimeUserError

USER_ERROR, BROKEN_PIPE = 2, 141  # exit codes; the last is 128 + the signal


def run(arguments: Sequence[str], started: float) -> int:
    """Runs one command. User errors go to standard error and exit with 2; signals exit with 128 + their number."""
    gc.disable()  # a compilation makes many objects and little garbage
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may know ASCII alone
    try:
        flags = read_flags(arguments)
        code = run_command(flags, started)
        sys.stdout.flush()
        return code
    except RuntimeUserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as interruption:
        return 128 + getattr(interruption, "signal", signal.SIGINT)
    except BrokenPipeError:  # the reader of our output is gone: there is nobody to tell
        drop_output()
        return BROKEN_PIPE
    except OSError as error:  # what reads and writes files tells of its own errors: most likely this is our output
        print(f"error: cannot write {error.filename or 'the output'}\n  found: {error.strerror}", file=sys.stderr)
        drop_output()
        return USER_ERROR


def drop_output() -> None:
    """What is still to be written goes nowhere, so that the interpreter does not try again on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(flags: argparse.Namespace, started: float) -> int:
    from compiler.cli.commands import COMMANDS
    from compiler.diagnostics import Diagnostics, UserError
    from runtime.training.interrupt import Interrupted

    flags.started, flags.diagnostics = started, Diagnostics()
    try:
        return COMMANDS[flags.command](flags) or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        return 128 + interruption.signal
