"""GFLOP/s of the convolutions of networks in C (runtime/native), beside PyTorch (channels last) if it is installed.

    python tests/bench/native_convolutions.py [NAME …] [--seconds 0.3] [--march native]

Forward, gradient of the input and gradient of the filters: processor time of one thread, the fastest of many calls.
Needs NumPy and a C compiler ($CC, else cc). Operations count zeros of the padding, as is usual.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "-std=gnu11 -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd -shared -fPIC"
DIRECTIONS = ("forward", "input", "filters")


@dataclass(frozen=True)
class Layer:
    """A convolution of square images; padding on all sides."""

    name: str
    n: int
    size: int
    channels: int
    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def output(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def sizes(self) -> list[int]:
        """The fields of Convolution in runtime/native/windows.h."""
        pair = [self.stride, self.stride, self.padding, self.padding, 1, 1]
        places = [self.kernel, self.kernel, self.output, self.output, self.groups]
        return [self.n, self.size, self.size, self.channels, self.filters, *places, *pair]

    @property
    def operations(self) -> float:
        pixels = self.n * self.output**2
        return 2.0 * pixels * self.filters * self.kernel**2 * self.channels // self.groups


LAYERS = (
    Layer("cnn 5x5 1-24", 128, 28, 1, 24, 5),
    Layer("cnn 5x5 24-48", 128, 12, 24, 48, 5),
    Layer("separable 5x5 dw 24", 128, 12, 24, 24, 5, groups=24),
    Layer("separable 1x1 24-48", 128, 8, 24, 48, 1),
    Layer("resnet 3x3 3-64", 32, 32, 3, 64, 3, padding=1),
    Layer("resnet 3x3 64", 32, 32, 64, 64, 3, padding=1),
    Layer("resnet 3x3/2 64-128", 32, 32, 64, 128, 3, 2, 1),
    Layer("resnet 3x3 128", 32, 16, 128, 128, 3, padding=1),
    Layer("resnet 1x1/2 128-256", 32, 16, 128, 256, 1, 2),
    Layer("resnet 3x3 256", 32, 8, 256, 256, 3, padding=1),
    Layer("resnet 3x3/2 256-512", 32, 8, 256, 512, 3, 2, 1),
    Layer("resnet 3x3 512", 32, 4, 512, 512, 3, padding=1),
    Layer("mobilenet 1x1 32-192", 16, 28, 32, 192, 1),
    Layer("mobilenet dw 192", 16, 28, 192, 192, 3, 1, 1, 192),
    Layer("mobilenet dw/2 192", 16, 28, 192, 192, 3, 2, 1, 192),
    Layer("mobilenet 1x1 960-160", 16, 7, 960, 160, 1),
    Layer("mobilenet dw 960", 16, 7, 960, 960, 3, 1, 1, 960),
    Layer("unet 3x3 32", 8, 64, 32, 32, 3, padding=1),
    Layer("unet 3x3 128-64", 8, 64, 128, 64, 3, padding=1),
    Layer("unet 1x1 64-2", 8, 64, 64, 2, 1),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only layers with one of these in their names")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each figure")
    parser.add_argument("--march", default="native")
    parser.add_argument("--no-torch", action="store_true")
    flags = parser.parse_args()
    layers = [layer for layer in LAYERS if not flags.names or any(name in layer.name for name in flags.names)]
    with tempfile.TemporaryDirectory() as folder:
        figures = [("C", measured_in_c(compiled(Path(folder), flags.march), flags.seconds))]
        if not flags.no_torch and (torch := measured_in_torch(flags.seconds)):
            figures.append(("torch", torch))
        heads = [f"{direction} {who}" for direction in DIRECTIONS for who, _ in figures]
        print(f"{'GFLOP/s':22}" + "".join(f"{head:>15}" for head in heads))
        for layer in layers:
            columns = [
                f"{layer.operations / seconds / 1e9:15.1f}"
                for triple in zip(*(measure(layer) for _, measure in figures), strict=True)
                for seconds in triple
            ]
            print(f"{layer.name:22}" + "".join(columns), flush=True)
    return 0


def compiled(folder: Path, march: str) -> ctypes.CDLL:
    compiler, library = shlex.split(os.environ.get("CC", "cc")), folder / "convolutions.so"
    wide = ["-mprefer-vector-width=512"] if "avx512f" in Path("/proc/cpuinfo").read_text() else []
    source = Path(__file__).with_suffix(".c")
    include = f"-I{ROOT / 'runtime' / 'native'}"
    subprocess.run([*compiler, *FLAGS.split(), *wide, f"-march={march}", include, source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def measured_in_c(library: ctypes.CDLL, seconds: float) -> Callable[[Layer], Iterator[float]]:
    library.fastest.restype = ctypes.c_double

    def measure(layer: Layer) -> Iterator[float]:
        x, w, y = arrays(layer)
        sizes = np.array(layer.sizes, np.int64)
        for op, (a, b, result) in enumerate(((x, w, y), (y, w, x), (x, y, w))):
            used = (sizes, *(aligned(array, index) for index, array in enumerate((a, b, result))))
            places = [ctypes.c_void_p(array.ctypes.data) for array in used]
            yield library.fastest(ctypes.c_long(op), *places, ctypes.c_double(seconds))

    return measure


def aligned(array: np.ndarray, index: int) -> np.ndarray:
    """A copy at a multiple of 64 bytes, as in the arena; operands do not start at the same place of their pages."""
    memory = np.empty(array.nbytes + 2 * 4096, np.uint8)
    start = -memory.ctypes.data % 4096 + 64 * 17 * index
    copied = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


def arrays(layer: Layer) -> list[np.ndarray]:
    """x, w and y, channels last."""
    draws = np.random.default_rng(0)
    shapes = (
        (layer.n, layer.size, layer.size, layer.channels),
        (layer.kernel, layer.kernel, layer.channels // layer.groups, layer.filters),
        (layer.n, layer.output, layer.output, layer.filters),
    )
    return [draws.standard_normal(shape, np.float32) for shape in shapes]


def measured_in_torch(seconds: float) -> Callable[[Layer], Iterator[float]] | None:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    torch.set_num_threads(1)

    def measure(layer: Layer) -> Iterator[float]:
        last = torch.channels_last
        x, y = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in arrays(layer)[::2])
        w = torch.from_numpy(arrays(layer)[1]).permute(3, 2, 0, 1).contiguous(memory_format=last)
        pairs = [[layer.stride] * 2, [layer.padding] * 2, [1, 1]]
        for mask in ((), (True, False, False), (False, True, False)):
            if mask:
                yield fastest(
                    lambda mask=mask: torch.ops.aten.convolution_backward(
                        y, x, w, None, *pairs, False, [0, 0], layer.groups, mask
                    ),
                    seconds,
                )
            else:
                yield fastest(lambda: torch.conv2d(x, w, None, *pairs, layer.groups), seconds)

    return measure


def fastest(call: Callable[[], object], seconds: float) -> float:
    best, total, count = float("inf"), 0.0, 0
    while total < seconds or count < 3:
        start = time.process_time()
        call()
        spent = time.process_time() - start
        best, total, count = min(best, spent), total + spent, count + 1
    return best


if __name__ == "__main__":
    raise SystemExit(main())
