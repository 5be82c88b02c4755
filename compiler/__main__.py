"""`python -m compiler …`, the same as the console script `nnc`."""

from __future__ import annotations

import sys
import time

STARTED = time.perf_counter()


def main() -> int:
    """Runs the command line; returns the exit code."""
    from compiler.cli import run

    return run(sys.argv[1:], STARTED)


if __name__ == "__main__":
    sys.exit(main())
