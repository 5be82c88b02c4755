"""nnc on a GPU, in a separate process: `gpu_nnc [--tf32] [--emulate] [--batch N] TASK …`.

serve             answers tests/bench/gpu.py: the step as a CUDA graph and eager, with the loop that `train` uses
device            the device's name, or an error if there is none
once MODEL        a step launched from Python and one as a CUDA graph, for compute-sanitizer
compare MODEL     a hundred steps each way: whether all variables have the same bits, and whether memory was allocated
command …         runs nnc itself
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler import __version__
from compiler.driver import compile_tree, load_tree
from compiler.passes.pipeline import with_optional
from compiler.targets.target import find_target
from runtime.datasets import describe
from runtime.errors import RuntimeUserError
from runtime.feeding import fitted
from tests.bench.peers.common import draw_digits
from tests.bench.peers.gpu_protocol import BATCH, STEPS, Columns, Measure, serve

if TYPE_CHECKING:
    from runtime.gpu.device_program import DeviceProgram, DeviceRunner

ROOT = Path(__file__).resolve().parents[3]
COMPARED_STEPS = 113  # the first runs eagerly in any case
CONVOLUTIONAL = ("cnn", "separable_cnn")


def emulate() -> None:
    """Replaces the device by the emulation of the tests."""
    import runtime.gpu
    from tests.gpu.emulation import cuda

    sys.modules["runtime.gpu.cuda"] = runtime.gpu.cuda = cuda  # pyright: ignore[reportAttributeAccessIssue]
    from runtime.gpu import device_profiler

    device_profiler.COPIED, device_profiler.MATRIX_SIZE, device_profiler.STEPS_PER_GRAPH = 1 << 20, 64, 2


def load(model: str, batch: int, graphs: bool = True, enabled: Sequence[str] = ()) -> DeviceProgram:
    """The unchanged recipe with the weights of its seed, for images stored as bytes, which the step scales."""
    from runtime.gpu.device_program import DeviceProgram

    tree = load_tree(ROOT / "models" / f"{model}.nn", [("--batch", str(batch))])
    cupy = find_target("cupy")
    passes = with_optional(cupy.pipeline, cupy.optional, enabled)
    compiled = compile_tree(tree, storage=describe("digits"), passes=passes, target=cupy.name)
    program = DeviceProgram(compiled.executable, compiled.manifest, graphs)
    program.initialize(0)
    return program


def runner_of(program: DeviceProgram, steps: int) -> tuple[DeviceRunner, np.ndarray]:
    """What trains a program for a number of steps, and the order of the examples."""
    from runtime.gpu.device_program import DeviceRunner

    count = steps * program.batch
    images, labels = (np.resize(array, (count, *array.shape[1:])) for array in draw_digits())
    arrays = fitted(program, "train_step", {"image": images, "label": labels}, "training")
    return DeviceRunner(program, "train_step", arrays), np.random.default_rng(0).permutation(count)


def column(model: str, batch: int, graphs: bool, enabled: Sequence[str] = ()) -> Measure:
    from runtime.gpu import cuda

    program = load(model, batch, graphs, enabled)
    steps = STEPS if batch == BATCH else 2
    runner, order = runner_of(program, steps)
    runner.means(order, batch)  # this compiles kernels and captures graphs
    clock = cuda.DeviceClock()

    def measure() -> float:
        runner.feed.begin(order, batch)
        tick = clock.start()
        deque(runner.advance(batch, steps), maxlen=0)
        tick(0)
        ((_, nanoseconds),) = clock.read()[0]
        return nanoseconds / 1e3 / steps

    return measure


def columns_of(batch: int) -> Callable[[str], Columns]:
    def columns(model: str) -> Columns:
        found: dict[str, Callable[[], Measure]] = {
            "graph": lambda: column(model, batch, graphs=True),
            "eager": lambda: column(model, batch, graphs=False),
        }
        if model in CONVOLUTIONAL:
            found["graph, im2col"] = lambda: column(model, batch, graphs=True, enabled=["im2col"])
        return found

    return columns


# Tasks ----------------------------------------------------------------------------------------------------------------


def serving(flags: argparse.Namespace) -> None:
    serve(columns_of(flags.batch), {"nnc": __version__})


def device(flags: argparse.Namespace) -> None:
    from runtime.gpu import cuda

    print(json.dumps({"device": cuda.device_name()}))


def once(flags: argparse.Namespace) -> None:
    (model,) = flags.rest
    runner, order = runner_of(load(model, flags.batch), 2)
    print(json.dumps(runner.means(order, flags.batch)))


def compare(flags: argparse.Namespace) -> None:
    """Trains twice with graphs and once without."""
    (model,) = flags.rest
    steps = COMPARED_STEPS if flags.batch == BATCH else 3
    results = [train(load(model, flags.batch, graphs), steps) for graphs in (True, True, False)]
    (first, allocated), (again, _), (eager, _) = results
    print(
        json.dumps({
            "steps": steps,
            "same_again": same(first, again),
            "same_as_eager": same(first, eager),
            "allocated_bytes": allocated,
        })
    )  # fmt: skip


def train(program: DeviceProgram, steps: int) -> tuple[dict[str, np.ndarray], int]:
    """All variables after some steps, and the bytes allocated when the steps are repeated."""
    from runtime.gpu import cuda

    runner, order = runner_of(program, steps)
    means = runner.means(order, program.batch)
    variables = {**program.variables(), **{name: np.array(value) for name, value in means.items()}}
    free = cuda.free_bytes()
    runner.means(order, program.batch)
    return variables, free - cuda.free_bytes()


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def command(flags: argparse.Namespace) -> int:
    from compiler.cli.run import run

    return run(flags.rest, perf_counter())


TASKS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "serve": serving,
    "device": device,
    "once": once,
    "compare": compare,
    "command": command,
}


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--emulate", action="store_true")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    flags = parser.parse_args()
    if flags.emulate:
        emulate()
    from runtime.gpu import cuda

    try:
        cuda.check()
        cuda.use_tf32(flags.tf32)
        return TASKS[flags.task](flags) or 0
    except RuntimeUserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
