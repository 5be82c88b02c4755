"""Thousands of damaged files of every untrusted kind: each must be accepted, or refused with an error.

    python tests/hostile/run.py --inputs 100000 --seed 0 [--kinds nn,ir] [--jobs 2] [--found DIR]

No traceback, at most five seconds of processor time and 512 MB of memory, no file written outside of the folder, no
process started. Prints a line for each kind; findings are written to DIR as files with their tracebacks, and the exit
code is then 1. The same seed gives the same damage; `--first N` begins at input N.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARES = {  # in a hundred
    "nn": 26, "ir": 18, "npy": 9, "npz": 9, "idx": 7, "checkpoint": 11, "cache": 6, "run": 3,
    "data": 2, "dump": 2, "flags": 7,
}  # fmt: skip
SHOWN = 3  # lines of a traceback


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.hostile.workers import Tally

    flags = read_flags()
    kinds = flags.kinds.split(",")
    whole, all_findings = sum(SHARES[kind] for kind in kinds), 0
    everything, began = Tally(), time.monotonic()
    for kind in kinds:
        tally = run_kind(kind, flags, flags.inputs * SHARES[kind] // whole)
        everything.add(tally)
        all_findings += len(tally.findings)
    print(line("all", everything, time.monotonic() - began))
    return 1 if all_findings else 0


def read_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="number of inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the first input of each kind")
    parser.add_argument("--kinds", default=",".join(SHARES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--found", type=Path, default=Path("hostile-found"), help="folder for findings")
    return parser.parse_args()


def run_kind(kind: str, flags: argparse.Namespace, count: int):
    """Tries the inputs of one kind, and prints the result."""
    from tests.hostile.workers import Tally, try_all

    tally, began = Tally(), time.monotonic()
    for part in try_all(kind, flags.seed, range(flags.first, flags.first + count), flags.jobs):
        tally.add(part)
        for finding in part.findings:
            name = f"{kind}-{flags.seed}-{finding.index}--{finding.file}"
            flags.found.mkdir(parents=True, exist_ok=True)
            flags.found.joinpath(name).write_bytes(finding.content)
            flags.found.joinpath(f"{name}.why").write_text(finding.why)
            print(f"  {name}: {' | '.join(finding.why.strip().splitlines()[-SHOWN:])}", flush=True)
    print(line(kind, tally, time.monotonic() - began), flush=True)
    return tally


def line(kind: str, tally, seconds: float) -> str:
    refused = tally.inputs - tally.accepted - len(tally.findings)
    return (
        f"{kind:>10}  {tally.inputs:7,} inputs  {tally.accepted:6,} accepted  {refused:7,} refused  "
        f"{len(tally.findings):3} findings  {tally.inputs / max(seconds, 1e-9):6.0f}/s  "
        f"slowest {tally.slowest:4.1f} s  at most {tally.memory >> 20} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
