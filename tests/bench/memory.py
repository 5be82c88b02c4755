"""The memory that training takes, next to the prediction made before any of it is allocated.

    python tests/bench/memory.py [MODEL …] [--data digits] [--steps N]

A model is one of models/, or a program of tests/bench/memory_cases.py with what needs memory outside of the plan.
Each trains for an epoch, or a few steps of one, in a separate process. Measured is the peak of the process
(VmHWM), minus what it has when the program is compiled or read from the cache but not yet loaded (VmRSS). The
prediction is that of `nnc train --timings`: tensors, data set, copies of either, and code.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.memory_cases import PROGRAMS, write_case

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("softmax", "mlp", "cnn", "separable_cnn", "bilstm")
NATIVE = "+native"  # after the name of a model: as C
CHECKED = "+check-numerics"  # after the name of a model: with this flag
TOLERANCE = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=(*MODELS, *PROGRAMS))
    parser.add_argument("--data", default="digits")
    parser.add_argument("--steps", type=int, help="steps of the epoch, and of the evaluation")
    parser.add_argument("--child", choices=("compile", "train"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        print(json.dumps(measure_here(flags.models[0], flags.data, flags.steps, flags.child)))
        return 0
    print(f"{'model':>22}  {'measured':>10}  {'predicted':>10}   kB")
    for model in flags.models:
        found = measure(model, flags.data, flags.steps)
        gap = found["predicted"] / found["measured"] - 1
        sizes = "  ".join(f"{found[name] // 1000:>10,}" for name in ("measured", "predicted"))
        print(f"{model:>22}  {sizes}   {gap:+.1%}{'  (over the limit)' if abs(gap) > TOLERANCE else ''}", flush=True)
    return 0


def measure(model: str, data: str, steps: int | None = None) -> dict[str, int]:
    """Bytes measured and predicted, in a new process whose program is already in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, model, "--data", data, *(["--steps", str(steps)] if steps else [])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NNC_CACHE": str(Path(folder, "cache"))}
        for task in ("compile", "train"):
            line = [*command, "--child", task]
            done = subprocess.run(line, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])


def measure_here(model: str, data: str, steps: int | None, task: str) -> dict[str, int]:
    model, checked, _ = model.partition(CHECKED)
    model, native, _ = model.partition(NATIVE)
    path = ROOT / f"models/{model}.nn"
    if model in PROGRAMS:
        path, data = write_case(model)
    from compiler.cli.commands import run as running
    from compiler.cli.flags import read_flags
    from compiler.cli.memory_limit import predicted_peak
    from runtime.feeding import HostRunner

    noted: dict[str, int] = {}
    make_program, means = running.program_of, HostRunner.means

    def program_of(build: Any, flags: argparse.Namespace) -> Any:
        needed = running.footprint(data, flags.data_dir, build.manifest.dtypes)
        noted["predicted"] = predicted_peak(build.executable, build.manifest, needed, flags.check_numerics).total
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
        noted["resident"] = status("VmRSS")
        if task == "compile":
            sys.exit()
        return make_program(build, flags)

    def some_means(runner: HostRunner, order: Any, size: int, *rest: Any) -> dict[str, float]:
        count = steps and (steps - 1) * size + len(order) % size  # with a smaller last batch
        return means(runner, order[:count], size, *rest)

    running.program_of, HostRunner.means = program_of, some_means  # type: ignore[assignment]
    command = ["train", str(path), "--data", data, "--epochs", "1", "--quiet"]
    run_command(read_flags([*command, *(["--check-numerics"] if checked else []), *(["--native"] if native else [])]))
    return {"measured": status("VmHWM") - noted["resident"], "predicted": noted["predicted"]}


def run_command(flags: argparse.Namespace) -> None:
    import gc
    import time

    from compiler.cli.commands.run import train_command
    from compiler.diagnostics import Diagnostics

    flags.started, flags.diagnostics = time.perf_counter(), Diagnostics()
    gc.disable()  # as the command line does
    train_command(flags)


def status(name: str) -> int:
    """A size in bytes that the kernel reports for this process."""
    found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
