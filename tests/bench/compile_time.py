"""Seconds to compile and load a program, by phase: the five models, ResNet-50, and two large generated programs.

    python tests/bench/compile_time.py [--programs cnn,chain_10000] [--repeats 5]

Every figure comes from a new process that has compiled nothing before; the run with the smallest total is shown. `ops`
counts those of the training step before and after the passes, including bodies. The total excludes imports.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = {name: f"models/{name}.nn" for name in ("softmax", "mlp", "cnn", "separable_cnn", "bilstm")}
FILES["resnet50"] = "examples/resnet50.nn"
PHASES = ("import", "parse", "elaborate", "differentiate", "passes", "plan", "generate", "load")
LARGE = 1_000  # layers or more: one run is enough
Figures = dict[str, float]


def chain(layers: int) -> str:
    """Dense layers one after the other: 15 ops of the training step each."""
    return f"""
model Chain(x: f32[B, 4]) {{
  for i in range({layers}) {{ x = x |> Dense(4) |> relu }}
  return x
}}
train Chain {{ loss = mean_squared_error; optimizer = SGD(lr=0.01) }}
"""


def elementwise(iterations: int) -> str:
    """The same elementwise ops repeated, with one parameter for all: 10 ops of the training step per iteration."""
    return f"""
model Iterated(x: f32[B, 4]) {{
  param w: f32[4] = ones
  for i in range({iterations}) {{ x = tanh(x * w) + 1 }}
  return x
}}
train Iterated {{ loss = mean_squared_error; optimizer = SGD(lr=0.01) }}
"""


GENERATED = {"chain": chain, "elementwise": elementwise}
PROGRAMS = (*FILES, "chain_10000", "elementwise_10000")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="also chain_N and elementwise_N for any N")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--once", metavar="PROGRAM", help="measure in this process and print the figures as JSON")
    flags = parser.parse_args()
    if flags.once:
        print(json.dumps(measure(flags.once)))
        return 0
    print(" ".join([f"{'':>18}", f"{'ops':>16}", *(f"{phase:>13}" for phase in PHASES), f"{'total':>9}"]))
    for name in flags.programs.split(","):
        repeats = 1 if size_of(name) >= LARGE else flags.repeats
        print(row(name, min((measure_in_new_process(name) for _ in range(repeats)), key=total)), flush=True)
    return 0


def row(name: str, figures: Figures) -> str:
    ops = f"{figures['before']:,.0f} → {figures['after']:,.0f}"
    seconds = (f"{figures[phase]:>13.3f}" for phase in PHASES)
    return " ".join([f"{name:>18}", f"{ops:>16}", *seconds, f"{total(figures):>9.3f}"])


def total(figures: Figures) -> float:
    return sum(figures[phase] for phase in PHASES if phase != "import")


def size_of(name: str) -> int:
    """The number at the end of a generated program's name; 0 for the others."""
    return 0 if name in FILES else int(name.partition("_")[2])


def source_of(name: str) -> str:
    if name in FILES:
        return (ROOT / FILES[name]).read_text("utf-8")
    return GENERATED[name.partition("_")[0]](size_of(name))


def measure_in_new_process(name: str) -> Figures:
    command = [sys.executable, __file__, "--once", name]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def measure(name: str) -> Figures:
    """Compiles and loads as `nnc train` does, without the garbage collector."""
    gc.disable()
    start = time.perf_counter()
    sys.path.insert(0, str(ROOT))
    from compiler.diagnostics import Diagnostics
    from compiler.driver import compile_tree, with_imports
    from compiler.language.parser import parse
    from compiler.timings import Timings
    from runtime.program import LoadedProgram

    timings, diagnostics = Timings(), Diagnostics()
    timings.seconds["import"] = time.perf_counter() - start
    with timings.phase("parse"):
        tree = with_imports(parse(source_of(name), f"{name}.nn", diagnostics), diagnostics)
    compiled = compile_tree(tree, diagnostics=diagnostics, timings=timings)
    with timings.phase("load"):
        LoadedProgram(compiled.executable, compiled.manifest)
    before, after = (sum(1 for _ in each["train_step"].walk()) for each in (compiled.module, compiled.optimized))
    return {**timings.seconds, "before": before, "after": after}


if __name__ == "__main__":
    sys.exit(main())
