"""Handwritten CUDA text: the engine of all products, and the product of two matrices that is used without cuBLAS.

The text is read from the files next to this one; nothing here needs CuPy.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


TILE = 32  # rows and columns; small, since most products without cuBLAS have few of both
SLICES = 4
THREADS = TILE // 4 * (TILE // 4) * SLICES

ENGINE = read("tile_product.cu")
CONVOLUTIONS = f"{ENGINE}\n{read('convolution.cu')}\n"
NAME = "gemm"
SOURCE = f"{ENGINE}\nusing GemmTile = products::Tile<{TILE}, {TILE}, 4, 32, {SLICES}>;\n\n{read('gemm.cu')}"


def launch_shape(m: int, n: int) -> tuple[tuple[int, int], tuple[int]]:
    """The grid and the block that compute c [m, n]; for an empty c the grid is empty and must not be launched."""
    return (-(-m // TILE), -(-n // TILE)), (THREADS,)
