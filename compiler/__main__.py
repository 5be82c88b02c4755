"""`python -m compiler …`, the same as the console script `nnc`."""

from __future__ import annotations

import signal
import sys
import time

from runtime.training.interrupt import Interrupted

STARTED = time.perf_counter()


def main() -> int:
    """Runs the command line; returns the exit code."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, stop)
    try:
        from compiler.cli.run import run  # here, so that a signal during the import ends as any other

        return run(sys.argv[1:], STARTED)
    except KeyboardInterrupt as interruption:  # during that import, or while an error is printed
        return 128 + getattr(interruption, "signal", signal.SIGINT)
    finally:  # the exit code is settled: no signal may disturb the interpreter as it shuts down
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def stop(number: int, frame: object) -> None:
    """Makes SIGTERM end a command as SIGINT does, with its cleanup; training installs its own handlers."""
    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())
