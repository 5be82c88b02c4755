"""What checking numbers costs in a training step: always (the trend of the loss), and with --check-numerics.

python tests/bench/numerics.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from compiler.driver import compile_tree, load_tree  # noqa: E402
from runtime.cpu.profiler import best, seconds_of  # noqa: E402
from runtime.datasets import describe, load  # noqa: E402
from runtime.feeding import batches, fitted  # noqa: E402
from runtime.program import LoadedProgram  # noqa: E402
from runtime.training.numerics import Guard, Trend  # noqa: E402
from tests.programs import MODELS  # noqa: E402

STEPS, MANY = 40, 100_000


def main() -> None:
    dataset = load("digits", None, print)
    print(f"{'model':14} {'step':>10} {'always':>9} {'':>8} {'checks':>9}")
    for model in MODELS:
        tree = load_tree(ROOT / "models" / f"{model}.nn", [("--data", '"digits"')])
        compiled = compile_tree(tree, storage=describe("digits", None))
        program = LoadedProgram(compiled.executable, compiled.manifest)
        program.initialize(0)
        step = step_seconds(program, fitted(program, "train_step", dataset.train.arrays, "training"))
        program.initialize(0)  # the checks are measured on finite numbers
        guard = Guard(program.variables())
        always = best(many_losses) / MANY
        checks = best(guard.bad) + best(guard.keep)
        print(
            f"{model:14} {step * 1e3:7.3f} ms {always * 1e6:6.2f} us {always / step:8.3%} "
            f"{checks * 1e6:6.0f} us {checks / step:6.1%}"
        )


def step_seconds(program: LoadedProgram, arrays: dict[str, np.ndarray]) -> float:
    """The quickest of some steps."""
    examples = len(next(iter(arrays.values())))
    running = batches(program, "train_step", arrays, np.arange(STEPS * program.batch) % examples, program.batch)
    return min(seconds_of(lambda: next(running)) for _ in range(STEPS))


def many_losses() -> None:
    trend = Trend()
    for _ in range(MANY):
        trend.add(1.0)


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        main()
