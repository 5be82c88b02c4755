"""Seconds until the first epoch is done, compilation included: when does native code pay?

    python tests/bench/first_epoch.py [--models mlp,cnn] [--data mnist] [--data-dir FOLDER] [--repeats 3] [--threads 2]

Every figure is of a new process of `nnc train`: from its start to the line of its first epoch, with an empty cache and
with the cache that this run left; and the seconds of the second epoch. The last column follows from them: the epochs
after which native code, compiled for the first time, has caught up with NumPy code.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.bench.peer_processes import (  # noqa: E402  (as a script, it adds its own path first)
    ALLOCATOR_SETTINGS,
    PeerFailed,
    cpu_name,
    environment,
    failures,
    has_native,
    progress,
)
from tests.bench.steps import MODELS, names_among, number, table  # noqa: E402

FLAGS = {"NumPy": (), "native": ("--native",)}
HEAD = ("model", "code", "first epoch, cold", "first epoch, cached", "next epoch", "native pays after")


@dataclass(frozen=True)
class Epochs:
    """Seconds from the start of a process to its first epoch, and those of the second epoch alone."""

    first: float
    next: float


@dataclass(frozen=True)
class Seconds:
    """Medians: the first epoch with an empty cache and with a filled one, and an epoch after that."""

    cold: float
    cached: float
    next: float


def main() -> None:
    options = parse_options()
    codes = list(FLAGS) if has_native() else ["NumPy"]
    found: dict[str, dict[str, Seconds]] = {}
    failed: dict[tuple[str, str], str] = {}
    for model in options.models:
        for code in codes:
            progress(f"{model}, {code}")
            try:
                found.setdefault(model, {})[code] = measure(model, FLAGS[code], options)
            except PeerFailed as error:
                if code == "NumPy":
                    raise SystemExit(str(error)) from None
                failed[model, code] = str(error)
    progress("")
    print("\n".join([*comparison(found), "", *failures(failed)]))
    print(
        f"Seconds; median of {options.repeats}. Data: {options.data}. "
        f"{cpu_name()}, {options.threads} of {os.cpu_count()} threads."
    )


def measure(model: str, flags: Sequence[str], options: argparse.Namespace) -> Seconds:
    """Some pairs of processes, each pair with a cache of its own: the first finds it empty, the second filled."""
    cold, cached = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(train(model, flags, options, f"{folder}/cache", f"{folder}/first"))
            cached.append(train(model, flags, options, f"{folder}/cache", f"{folder}/second"))
    later = median(run.next for run in cold + cached)
    return Seconds(median(run.first for run in cold), median(run.first for run in cached), later)


def train(model: str, flags: Sequence[str], options: argparse.Namespace, cache: str, out: str) -> Epochs:
    """Two epochs of a recipe in a new process, in the environment that users have. Raises PeerFailed."""
    place = ["--data-dir", options.data_dir] if options.data_dir else []
    words = ["train", model, *flags, "--data", options.data, *place, "--epochs", "2", "--out", out]
    kept = {key: value for key, value in environment(options.threads).items() if key not in ALLOCATOR_SETTINGS}
    start, times = time.perf_counter(), []
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "compiler", *words],
        cwd=ROOT,
        env={**kept, "NNC_CACHE": cache},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("loss:"):
                times.append(time.perf_counter() - start)
    if process.returncode or len(times) != 2:
        raise PeerFailed(f"nnc {' '.join(words)} failed:\n{''.join(lines)}")
    return Epochs(times[0], times[1] - times[0])


def comparison(found: dict[str, dict[str, Seconds]]) -> list[str]:
    """The table in Markdown."""
    rows = []
    for model, codes in found.items():
        for code, seconds in codes.items():
            pays = pays_after(codes["NumPy"], seconds) if code == "native" else ""
            figures = (number(each) for each in (seconds.cold, seconds.cached, seconds.next))
            rows.append([model, code, *figures, pays])
    return table(HEAD, rows)


def pays_after(numpy: Seconds, native: Seconds) -> str:
    """The number of whole epochs after which native code is ahead, both compiled for the first time."""
    if native.cold <= numpy.cold:
        return "1 epoch"
    if native.next >= numpy.next:
        return "never"
    return f"{1 + math.ceil((native.cold - numpy.cold) / (numpy.next - native.next))} epochs"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=names_among(MODELS), default=list(MODELS), metavar="NAMES")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", metavar="FOLDER", help="the folder with the files of the data set")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
