"""Windows that slide over the height and width of images: how many fit, and a view of the pixels under each tap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from compiler.ir.types import Dim, TensorType, TypeRuleError
from compiler.ops.rules import expect_integers, expect_static, show_attribute

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # (top, bottom), (left, right)
NO_PADDING: Padding = ((0, 0), (0, 0))
WINDOW = {"stride": (1, 1), "padding": NO_PADDING, "dilation": (1, 1)}  # attributes with their defaults


def output_size(size: Sequence[Dim], window: Any, stride: Any, padding: Any, dilation: Any = (1, 1)) -> Pair:
    """(rows, columns) of windows that fit into an image of `size` with its padding; TypeRuleError if none fits."""
    height, width = expect_static(size, "the height or width of an image")
    for name, value in (("window", window), ("stride", stride), ("dilation", dilation)):
        expect_integers(name, value, 2, least=1)
    if not (isinstance(padding, tuple) and len(padding) == 2):
        raise TypeRuleError("padding is not valid", "[[top, bottom], [left, right]]", show_attribute(padding))
    for sides in padding:
        expect_integers("padding", sides, 2)
    rooms = [height + sum(padding[0]), width + sum(padding[1])]
    reaches = [(taps - 1) * step + 1 for taps, step in zip(window, dilation, strict=True)]
    if any(reach > room for reach, room in zip(reaches, rooms, strict=True)):
        dilated = f", dilated to {reaches[0]} x {reaches[1]}" if reaches != list(window) else ""
        found = f"{window[0]} x {window[1]}{dilated}"
        raise TypeRuleError("the window is larger than the padded image", f"at most {rooms[0]} x {rooms[1]}", found)
    rows, columns = ((room - reach) // step + 1 for room, reach, step in zip(rooms, reaches, stride, strict=True))
    return rows, columns


def expect_gradient(y: TensorType, dy: TensorType, what: str) -> None:
    if y != dy:
        raise TypeRuleError(f"the gradient does not have the shape of the {what}'s result", str(y), str(dy))


def window_of(y: Any) -> dict[str, Any]:
    """The attributes that an op with windows and its adjoints share."""
    return {name: value for name, value in y.node.attributes.items() if name in (*WINDOW, "groups")}


def pad_images(x: np.ndarray, padding: Padding, value: float = 0.0) -> np.ndarray:
    """A copy of x [N, H, W, C] with padding."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def crop_images(x: np.ndarray, padding: Padding) -> np.ndarray:
    """Undoes `pad_images`."""
    (top, bottom), (left, right) = padding
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def taps(
    images: np.ndarray, window: Pair, stride: Pair, output: Pair, dilation: Pair = (1, 1)
) -> Iterator[tuple[int, int, np.ndarray]]:
    """For each tap (i, j) of the window: i, j and the view [N, rows, columns, C] of the padded images under it."""
    for i, j in product(range(window[0]), range(window[1])):
        rows, columns = (
            slice(tap * spread, tap * spread + (count - 1) * step + 1, step)
            for tap, spread, count, step in zip((i, j), dilation, output, stride, strict=True)
        )
        yield i, j, images[:, rows, columns]
