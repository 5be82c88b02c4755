"""CUDA text written by hand: the engine of all products, and with it the product of two matrices without cuBLAS.

The text is read from files beside this one; nothing here needs CuPy.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


TILE = 32  # rows and columns; small, since a product without cuBLAS is mostly one with few of both
SLICES = 4
THREADS = TILE // 4 * (TILE // 4) * SLICES

ENGINE = read("tile_product.cu")
CONVOLUTIONS = f"{ENGINE}\n{read('convolution.cu')}\n"
NAME = "gemm"
SOURCE = f"{ENGINE}\nusing GemmTile = products::Tile<{TILE}, {TILE}, 4, 32, {SLICES}>;\n\n{read('gemm.cu')}"


def launch_shape(m: int, n: int) -> tuple[tuple[int, int], tuple[int]]:
    """The grid and the block that compute c [m, n]; an empty grid, which must not be launched, for an empty c."""
    return (-(-m // TILE), -(-n // TILE)), (THREADS,)
