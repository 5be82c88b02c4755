"""Generates programs from seeds, checks each in many ways, and reduces failing ones to files that can be run again.

    python tests/fuzz/run.py --programs 10000 --seed 0 [--jobs 2] [--seconds N] [--out DIR]
    python tests/fuzz/run.py --file FILE     check one program, an .ir or .nn file
    python tests/fuzz/run.py --show 1234     print the program of a seed

docs/testing.md says what is generated and checked, and how to read a finding. Exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tests.fuzz.checking import Outcome  # noqa: E402
from tests.fuzz.findings import KINDS, SUFFIXES, program_of, read_program, reduced  # noqa: E402

CHUNK = 20  # programs given to a worker at a time
LONGEST = 120  # seconds that one program may take
REPORT_EVERY = 30.0  # seconds
Checked = tuple[int, str, Outcome]  # seed, kind, outcome


class TooLong(Exception):
    """A program took longer than the limit."""


def alarm(number: int, frame: FrameType | None) -> NoReturn:
    raise TooLong(f"more than {LONGEST} seconds")


def check_seed(seed: int, brief: bool = False) -> Checked:
    program = None
    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(LONGEST)
    try:
        program = program_of(seed)
        outcome = program.check(brief)
    except TooLong as error:
        outcome = Outcome("crash", "somewhere", f"TooLong: {error}")
    finally:
        signal.alarm(0)
    return seed, program.kind if program else KINDS[0], outcome


def check_seeds(seeds: Sequence[int], brief: bool = False) -> list[Checked]:
    return [check_seed(seed, brief) for seed in seeds]


def check_all(seeds: range, jobs: int, brief: bool = False, seconds: float | None = None) -> Iterator[Checked]:
    """The outcomes, in any order, until all seeds are checked or the time is over."""
    chunks = iter([seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)])
    end = time.monotonic() + seconds if seconds else float("inf")
    with ProcessPoolExecutor(jobs) as pool:
        running: set[Future[list[Checked]]] = set()
        while True:
            room = 2 * jobs - len(running) if time.monotonic() < end else 0
            running |= {pool.submit(check_seeds, chunk, brief) for chunk in islice(chunks, room)}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()


def write_finding(seed: int, outcome: Outcome, folder: Path) -> Path:
    """Reduces the program of a seed and writes it."""
    program = program_of(seed)
    try:
        program = reduced(program, outcome)
        outcome = program.check()
    except Exception as error:  # a finding is written even if it cannot be reduced
        print(f"seed {seed} could not be reduced: {type(error).__name__}: {error}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{program.kind}_{seed}{SUFFIXES[program.kind]}"
    path.write_text(program.file_text(outcome))
    return path


class Tally:
    """Counts outcomes."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.buckets: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def add(self, kind: str, outcome: Outcome) -> None:
        self.buckets[outcome.bucket] += 1
        self.kinds[kind] += 1

    @property
    def valid(self) -> float:
        """The share of programs that elaborate and differentiate."""
        return 1.0 - self.buckets["invalid"] / max(1, self.kinds.total())

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.kinds[kind]} {kind}s" for kind in KINDS)
        counts = ", ".join(f"{self.buckets[name]} {name}" for name in ("mismatch", "crash", "unstable", "nan"))
        seconds = time.monotonic() - self.start
        return f"{self.kinds.total()} programs ({kinds}), {self.valid:.1%} valid: {counts}; {seconds:.0f} s"


def fuzz(options: argparse.Namespace) -> int:
    tally, known, reported = Tally(), Counter[tuple[str, str, str]](), time.monotonic()
    seeds = range(options.seed, options.seed + options.programs)
    for seed, kind, outcome in check_all(seeds, options.jobs, seconds=options.seconds):
        tally.add(kind, outcome)
        if outcome.is_finding:
            known[outcome.signature] += 1
            print(f"seed {seed} ({kind}): {outcome.bucket} at {outcome.stage}: {outcome.detail}", flush=True)
            if known[outcome.signature] <= options.examples:
                path = write_finding(seed, outcome, options.out)
                print(f"  reduced: python tests/fuzz/run.py --file {path}", flush=True)
        if time.monotonic() - reported > REPORT_EVERY:
            print(tally, flush=True)
            reported = time.monotonic()
    print(tally)
    return int(known.total() > 0)


def rerun(path: Path) -> int:
    """Checks the program in a file."""
    outcome = read_program(path).check()
    print(f"{path}: {outcome.bucket} {outcome.stage}: {outcome.detail}" if outcome.stage else f"{path}: passed")
    return int(outcome.is_finding)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument("--seconds", type=float, help="start no more programs after this time")
    parser.add_argument("--out", type=Path, default=Path("findings"), help="where findings are written")
    parser.add_argument("--examples", type=int, default=3, help="findings of each kind to reduce")
    parser.add_argument("--file", type=Path, help="check this program instead")
    parser.add_argument("--show", type=int, metavar="SEED", help="print the program of a seed instead")
    options = parser.parse_args()
    if options.file:
        return rerun(options.file)
    if options.show is not None:
        print(program_of(options.show).text)
        return 0
    return fuzz(options)


if __name__ == "__main__":
    sys.exit(main())
