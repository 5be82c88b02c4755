"""`python -m compiler …`, the same as the console script `nnc`."""

from __future__ import annotations

import signal
import sys
import time

STARTED = time.perf_counter()


def main() -> int:
    """Runs the command line; returns the exit code."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, stop)
    try:
        from compiler.cli.run import run

        return run(sys.argv[1:], STARTED)
    except KeyboardInterrupt as interruption:  # while that is imported, or an error is told
        return 128 + getattr(interruption, "signal", signal.SIGINT)
    finally:  # nothing is left to be done, and the exit code is settled: the interpreter may shut down in peace
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def stop(number: int, frame: object) -> None:
    """SIGTERM ends a command as SIGINT does, cleaning up behind it; training has handlers of its own."""
    from runtime.training.interrupt import Interrupted

    raise Interrupted(number)


if __name__ == "__main__":
    sys.exit(main())
