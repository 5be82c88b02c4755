"""Checks of a data set against a model: of types before anything is read, of values before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from runtime.datasets.dataset import ArrayInfo, Dataset
from runtime.errors import RuntimeUserError, did_you_mean, quoted
from runtime.program import TensorSpec

INTEGERS = {"u8": np.uint8, "i32": np.int32, "i64": np.int64}
ROWS_AT_ONCE = 4096
Place = Callable[[int], int]


def check(info_by_name: Mapping[str, ArrayInfo], specs: Sequence[TensorSpec]) -> None:
    """Checks that the data set has an array for every input and target in `specs`, of a type that fits.

    The shapes of an example must agree except for sizes of 1, or one of them is flat and has as many values. Integers
    may feed floats, and floats that are whole may feed integers, which is checked when they are read. Raises
    RuntimeUserError for the first array that does not fit.
    """
    for spec in specs:
        if spec.name not in info_by_name:
            raise RuntimeUserError(
                f"the data set has no array for the model's {spec.kind} {quoted(spec.name)}",
                expected=f"an array {quoted(spec.name)}, {_of_model(spec)} per example",
                found=", ".join(f"{_printable(name)}: {_of_data(info)}" for name, info in info_by_name.items()),
                hint=_hint_for_missing(spec, info_by_name, specs),
            )
        info = info_by_name[spec.name]
        if not _shapes_fit(info.shape, _example_shape(spec)):
            raise RuntimeUserError(
                f"array {quoted(spec.name)} does not have the shape of the model's {spec.kind}",
                expected=f"{_of_model(spec)} per example, or the same values flat or with other sizes of 1",
                found=_of_data(info),
                hint=_hint_for_one_hot(spec, info),
            )


def check_values(dataset: Dataset, specs: Sequence[TensorSpec], class_counts: Mapping[str, int]) -> None:
    """Checks the values of the arrays in `specs`, in both splits.

    Floats must be finite; integers must be in 0 … classes - 1 if `class_counts` has the array, and else in the range of
    the model's dtype. Raises RuntimeUserError with the array, the row and the value.
    """
    for split_name, split in dataset.splits.items():
        for spec in specs:
            array = split.arrays[spec.name]
            where = f"array {quoted(spec.name)} ({split_name})"
            if array.dtype.kind == "f":
                _check_finite(array, where, split.place)
            elif spec.name in class_counts:
                _check_classes(dataset, spec, class_counts[spec.name], array, where, split.place)
            elif spec.dtype in INTEGERS:
                limits, complaint = np.iinfo(INTEGERS[spec.dtype]), f"does not fit the model's {spec.dtype}"
                check_range(array, limits.min, limits.max, complaint, where, split.place)


def _check_classes(dataset: Dataset, spec: TensorSpec, count: int, array: np.ndarray, where: str, place: Place) -> None:
    kind = "a class of the model" if spec.kind == "target" else "a row of the table that the model looks it up in"
    try:
        check_range(array, 0, count - 1, f"is not {kind}", where, place)
    except RuntimeUserError as error:
        parts = [split.arrays[spec.name] for split in dataset.splits.values()]
        if min(part.min() for part in parts) == 1 and max(part.max() for part in parts) == count:
            error.hint = f"the values run from 1 to {count}: subtract 1"
        raise


def _check_finite(array: np.ndarray, where: str, place: Place) -> None:
    for start, rows in _blocks(array):
        bad = ~np.isfinite(rows)
        if bad.any():
            row, value = _first(bad, rows)
            raise RuntimeUserError(
                f"row {place(start + row)} of {where} is not finite", expected="finite numbers", found=f"{value}"
            )


def check_range(
    array: np.ndarray, low: int, high: int, complaint: str, where: str, place: Place = lambda row: row
) -> None:
    """Raises RuntimeUserError, `row 3 of {where} {complaint}`, for the first value outside of low … high.

    `place` gives the number of a row in its file.
    """
    for start, rows in _blocks(array):
        bad = (rows < low) | (rows > high)
        if bad.any():
            row, value = _first(bad, rows)
            raise RuntimeUserError(
                f"row {place(start + row)} of {where} {complaint}",
                expected=f"whole numbers {low} … {high}",
                found=f"{value}",
            )


def _blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The rows in blocks, to keep masks small: (index of the first row, rows)."""
    for start in range(0, len(array), ROWS_AT_ONCE):
        yield start, array[start : start + ROWS_AT_ONCE]


def _first(bad: np.ndarray, rows: np.ndarray) -> tuple[int, object]:
    """The index of the first row with a bad value, and that value."""
    index = int(bad.ravel().argmax())
    return index // (rows.size // len(rows)), rows.ravel()[index].item()


def _example_shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if size is not None)


def _shapes_fit(data: tuple[int, ...], model: tuple[int, ...]) -> bool:
    data_sizes, model_sizes = ([size for size in shape if size != 1] for shape in (data, model))
    if data_sizes == model_sizes:
        return True
    return min(len(data_sizes), len(model_sizes)) <= 1 and math.prod(data) == math.prod(model)


def _hint_for_missing(
    spec: TensorSpec, info_by_name: Mapping[str, ArrayInfo], specs: Sequence[TensorSpec]
) -> str | None:
    """Which array may be the missing one under another name."""
    if near := did_you_mean(spec.name, info_by_name):
        return near
    unused = {name: info for name, info in info_by_name.items() if name not in {each.name for each in specs}}
    fitting = [name for name, info in unused.items() if _shapes_fit(info.shape, _example_shape(spec))]
    if not fitting:
        return None
    array = f"array {quoted(fitting[0])}" if len(fitting) == 1 else "an array"
    return f"arrays have the names of the model's inputs and targets: rename {array} to {quoted(spec.name)}"


def _hint_for_one_hot(spec: TensorSpec, info: ArrayInfo) -> str | None:
    if spec.kind == "target" and not _example_shape(spec) and len(info.shape) == 1:
        return "one-hot labels? store their argmax, or use a loss with an f32 target"
    return None


def _of_model(spec: TensorSpec) -> str:
    return f"{spec.dtype}{list(_example_shape(spec))}"


def _of_data(info: ArrayInfo) -> str:
    return f"{info.dtype}{list(info.shape)}"


def _printable(name: str) -> str:
    return quoted(name)[1:-1]
