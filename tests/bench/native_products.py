"""GFLOP/s of matrix products in C (runtime/native) beside OpenBLAS (NumPy) and PyTorch, over a grid of sizes.

    python tests/bench/native_products.py [SIZE …] [--layouts NN,NT,TN,TT] [--threads 1] [--seconds 0.02] [--plot FILE]
    python tests/bench/native_products.py 128x512x784 4096x1x4096

A SIZE is ROWSxCOLUMNSxDEPTH; without one, all triples of SIDES with at most --work products. T: the operand is stored
transposed. Each figure is the fastest of many calls: with one thread, of its processor time, else by the clock. Columns
of peers that are not installed are left out. Each calls its own library the usual way: for small products, that call
from Python takes longer than the product. The last line counts where C is slower than the faster peer.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

PEER_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "runtime" / "native"
FLAGS = "-std=gnu11 -O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd -shared -fPIC"
SIDES = (1, 2, 3, 7, 8, 10, 16, 31, 64, 100, 128, 256, 512, 784, 1000, 1024, 2048, 4096)
Size = tuple[int, int, int]
Measure = Callable[[Size, str], float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", help="ROWSxCOLUMNSxDEPTH")
    parser.add_argument("--layouts", default="NN,NT,TN,TT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.02, help="for each figure")
    parser.add_argument("--work", type=float, default=2e8, help="most products of numbers of a size of the grid")
    parser.add_argument("--every", type=int, default=1, help="of the grid, every so many sizes")
    parser.add_argument("--plot", help="file for a plot (needs matplotlib)")
    flags = parser.parse_args()
    start_again_for_peers(flags.threads)
    sizes = [size_of(text) for text in flags.sizes] or list(grid(flags.work))[:: flags.every]
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "C": measured_in_c(compiled(Path(folder)), flags.threads, flags.seconds),
            "OpenBLAS": measured_in_numpy(flags.threads, flags.seconds),
        }
        if torch := measured_in_torch(flags.threads, flags.seconds):
            figures["torch"] = torch
        rows = list(table(sizes, flags.layouts.split(","), figures))
    report(rows)
    if flags.plot:
        plot(rows, flags.plot)
    return 0


def start_again_for_peers(threads: int) -> None:
    """Libraries read their settings when they are loaded: this script runs once more, with those of --threads."""
    wanted = {name: str(threads) for name in THREADS}
    if all(os.environ.get(name) == value for name, value in wanted.items()) and not set(PEER_SETTINGS) & set(
        os.environ
    ):
        return
    environment = {name: value for name, value in os.environ.items() if name not in PEER_SETTINGS} | wanted
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def size_of(text: str) -> Size:
    rows, columns, depth = map(int, text.split("x"))
    return rows, columns, depth


def grid(work: float) -> Iterator[Size]:
    for size in itertools.product(SIDES, repeat=3):
        if math.prod(size) <= work:
            yield size


def table(
    sizes: list[Size], layouts: list[str], figures: dict[str, Measure]
) -> Iterator[tuple[Size, str, dict[str, float]]]:
    """Prints and yields GFLOP/s of each size and layout."""
    print(f"{'rows x columns x depth':24}{'':4}" + "".join(f"{name:>10}" for name in figures), flush=True)
    for size, layout in itertools.product(sizes, layouts):
        speeds = {name: 2e-9 * math.prod(size) / measure(size, layout) for name, measure in figures.items()}
        columns = "".join(f"{speed:10.3g}" for speed in speeds.values())
        print(f"{' x '.join(map(str, size)):24}{layout:4}{columns}", flush=True)
        yield size, layout, speeds


def report(rows: list[tuple[Size, str, dict[str, float]]]) -> None:
    ratios = sorted(
        (speeds["C"] / max(speed for name, speed in speeds.items() if name != "C"), size, layout)
        for size, layout, speeds in rows
    )
    slower = [row for row in ratios if row[0] < 1]
    mean = math.exp(sum(math.log(ratio) for ratio, _, _ in ratios) / len(ratios))
    print(f"C is {mean:.2f} times as fast as the faster peer (geometric mean)")
    print(f"and slower on {len(slower)} of {len(rows)}{':' if slower else ''}")
    for ratio, size, layout in slower[:20]:
        print(f"  {ratio:.2f}  {' x '.join(map(str, size))} {layout}")


# The libraries --------------------------------------------------------------------------------------------------------


def compiled(folder: Path) -> ctypes.CDLL:
    compiler, library = shlex.split(os.environ.get("CC", "cc")), folder / "products.so"
    information = Path("/proc/cpuinfo")
    wide = ["-mprefer-vector-width=512"] if information.exists() and "avx512f" in information.read_text() else []
    sources = [Path(__file__).with_suffix(".c"), NATIVE / "pool.c"]
    command = [*compiler, *FLAGS.split(), *wide, f"-I{NATIVE}", *sources, "-o", library, "-lpthread"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def aligned(shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Random numbers at a multiple of 64 bytes; operands do not start at the same place of their pages."""
    count = math.prod(shape)
    memory = np.empty(4 * count + 8192, np.uint8)
    start = -memory.ctypes.data % 4096 + 64 * 17 * offset
    array = memory[start : start + 4 * count].view(np.float32).reshape(shape)
    array[...] = np.random.default_rng(offset).random(shape, np.float32)
    return array


def operands(size: Size, layout: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B and C as views of their shapes."""
    rows, columns, depth = size
    a = aligned((depth, rows), 0).T if layout[0] == "T" else aligned((rows, depth), 0)
    b = aligned((columns, depth), 1).T if layout[1] == "T" else aligned((depth, columns), 1)
    return a, b, aligned((rows, columns), 2)


def measured_in_c(library: ctypes.CDLL, threads: int, seconds: float) -> Measure:
    library.fastest.restype = ctypes.c_double

    def measure(size: Size, layout: str) -> float:
        arrays = operands(size, layout)
        places = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        transposed = [ctypes.c_int(kind == "T") for kind in layout]
        settings = (ctypes.c_int(threads), ctypes.c_double(seconds))
        return library.fastest(*map(ctypes.c_long, size), *transposed, *settings, *places)

    return measure


def measured_in_numpy(threads: int, seconds: float) -> Measure:
    def measure(size: Size, layout: str) -> float:
        a, b, c = operands(size, layout)
        return fastest(lambda: np.matmul(a, b, out=c), threads, seconds)

    return measure


def measured_in_torch(threads: int, seconds: float) -> Measure | None:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    torch.set_num_threads(threads)

    def measure(size: Size, layout: str) -> float:
        a, b, c = map(torch.from_numpy, operands(size, layout))
        return fastest(lambda: torch.mm(a, b, out=c), threads, seconds)

    return measure


def fastest(call: Callable[[], object], threads: int, seconds: float) -> float:
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    call()
    calls = 1 + int(1e-4 / max(clock() - start, 1e-7))
    best, spent, count = float("inf"), 0.0, 0
    while spent < seconds or count < 3:
        start = clock()
        for _ in range(calls):
            call()
        once = clock() - start
        best, spent, count = min(best, once / calls), spent + once, count + 1
    return best


def plot(rows: list[tuple[Size, str, dict[str, float]]], file: str) -> None:
    """GFLOP/s over the number of operations, a point for each size and layout."""
    import matplotlib  # pyright: ignore[reportMissingImports]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    for name in rows[0][2]:
        points = [(2 * math.prod(size), speeds[name]) for size, _, speeds in rows]
        pyplot.loglog(*zip(*points, strict=True), ".", markersize=3, label=name)
    pyplot.xlabel("operations of the product")
    pyplot.ylabel("GFLOP/s")
    pyplot.legend()
    pyplot.savefig(file)


if __name__ == "__main__":
    raise SystemExit(main())
