"""Seconds from process start to the first training step of each model, without reading the data, and for `--help`.

    python tests/bench/startup.py [--data digits] [--repeats 3]

Prints a table of medians, for programs that are compiled and for programs in the cache. A figure over its limit (first
step 1 s, help 0.2 s) is marked, but never fails: people judge speed, on machines they know.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("softmax", "mlp", "cnn", "separable_cnn", "bilstm")
LIMITS = {"help": 0.2, "first step": 1.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    show("--help", [seconds_of_help() for _ in range(flags.repeats)], LIMITS["help"], "")
    with tempfile.TemporaryDirectory() as cache:
        for model in MODELS:
            show_phases(model, [phases(model, flags.data, "off") for _ in range(flags.repeats)])
            phases(model, flags.data, cache)
            show_phases("cached", [phases(model, flags.data, cache) for _ in range(flags.repeats)])
    return 0


def show_phases(name: str, runs: list[dict[str, float]]) -> None:
    middle = {phase: median(run[phase] for run in runs) for phase in runs[0]}
    detail = ", ".join(f"{phase} {milliseconds:.0f}" for phase, milliseconds in middle.items() if phase != "total")
    show(name, [run["total"] / 1e3 for run in runs], LIMITS["first step"], f"  ms: {detail}")


def show(name: str, seconds: list[float], limit: float, detail: str) -> None:
    middle = median(seconds)
    print(f"{name:>14}  {middle:.2f} s{' (over the limit)' if middle > limit else ''}{detail}", flush=True)


def seconds_of_help() -> float:
    start = time.perf_counter()
    nnc("--help")
    return time.perf_counter() - start


def phases(model: str, data: str, cache: str) -> dict[str, float]:
    """Milliseconds by phase of one start; the total excludes the data. The cache is a folder, or `off`."""
    with tempfile.TemporaryDirectory() as folder:
        # One epoch over a batch-sized data set would do, but users start with built-in data: stop after the phases
        # are printed, before the first epoch is over.
        arguments = [
            "train",
            f"models/{model}.nn",
            "--data",
            data,
            "--timings",
            "--epochs",
            "1",
            "--out",
            f"{folder}/run",
        ]
        process = nnc_started(*arguments, cache=cache)
        lines = []
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if "total" in line:
                break
        process.terminate()
        process.wait()
    found = {m[1].strip(): float(m[2]) for line in lines if (m := re.match(r"\s*([a-z ]+?)\s+([\d.]+) ms", line))}
    without_data = re.search(r"([\d.]+) ms without the data", lines[-1])
    assert without_data
    return {**found, "total": float(without_data[1])}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", "compiler", *arguments]


def environment() -> dict[str, str]:
    """As users have it: without settings of the BLAS library."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}


def nnc(*arguments: str) -> None:
    subprocess.run(command(*arguments), cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)


def nnc_started(*arguments: str, cache: str) -> subprocess.Popen[str]:
    settings = {**environment(), "NNC_CACHE": cache}
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


if __name__ == "__main__":
    sys.exit(main())
