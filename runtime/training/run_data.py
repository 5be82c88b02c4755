"""What the arrays of a run mean: `data.json` in its folder, written when training starts.

A later array, for `eval`, `predict` or `--resume`, becomes an input as it did in training, however it is stored. The
file is strict JSON and may have been changed by anyone: all of it is checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from runtime.datasets import BUILT_IN
from runtime.datasets.dataset import BYTE_SCALE, ArrayInfo, Dataset, usual_scale
from runtime.errors import RuntimeUserError, quoted, shortened
from runtime.program import LANGUAGE_TYPES, Manifest, TensorSpec
from runtime.training.tensor_files import with_unique_names

FORMAT = 1
MOST_ARRAYS = 1000
STORED = ("u8", "bool", "i32", "i64", "f32", "f64")
PARTS = ("training", "validation", "test")  # of the rows
WHOLE = ("u8", "i32", "i64")
LARGEST = sys.float_info.max
# For the fingerprint of an array: the most rows, about how many values, and the fewest rows.
SAMPLED_ROWS, SAMPLED_VALUES, FEWEST_ROWS = 1024, 1 << 20, 64
HASHED_AT_ONCE = 1 << 14  # values
LONGEST_TEXT = 10_000  # characters, of a path
MOST_SHOWN = 4  # arrays in a line
FAR = 1.0  # widths of the range seen in training that a value may lie outside of it without a warning
DARK = 0.1  # the largest of all values, for bytes that are divided by 255: images have brighter pixels
FAINT = 0.01  # of the largest value seen in training: less than that is another scale, if scaled or at most 1


@dataclass(frozen=True)
class RunArray:
    """An input or target as it was in training: how it was stored, and the range of values that the model saw.

    `chosen` says that the train block gave the scale. `classes` is the number of valid values of an index.
    """

    kind: str
    stored: str
    scale: float
    chosen: bool
    low: float
    high: float
    classes: int | None = None

    def scale_of(self, stored: str) -> float:
        """The factor for an array that is stored in another way: it gets the meaning that the input has in the run."""
        if self.chosen or stored == self.stored or {stored, self.stored} <= {*WHOLE}:
            return self.scale
        if stored == "u8" and self.stored != "bool" and self.low >= 0 and self.high <= 1:
            return usual_scale(stored, self.kind)
        return 1.0


@dataclass(frozen=True)
class RunData:
    """The data of a run. `data` is the name of a built-in data set or a path; `rows` has the numbers of examples.

    The seed drew the test rows, if `drawn`, and the share `validation` of the other rows, if there is one. The
    `fingerprint` is that of the values.
    """

    data: str
    rows: Mapping[str, int]  # training, test and maybe validation
    drawn: bool
    seed: int
    validation: float | None
    fingerprint: str
    arrays: Mapping[str, RunArray]

    @classmethod
    def of(
        cls, data: str, stored: Mapping[str, ArrayInfo], dataset: Dataset, manifest: Manifest, seed: int | None = None
    ) -> RunData:
        """The record of a data set, for a program that was compiled for it; `stored` has the types in its files.

        The seed is that of the split, by default that of the program.
        """
        arrays = {}
        for spec in (*manifest.inputs, *manifest.targets):
            array, scale = dataset.train.arrays[spec.name], manifest.scales.get(spec.name, 1.0)
            low, high = range_of(array, scale)
            chosen, classes = spec.name in manifest.chosen_scales, manifest.classes.get(spec.name)
            arrays[spec.name] = RunArray(spec.kind, stored[spec.name].dtype, scale, chosen, low, high, classes)
        settings, rows = manifest.settings, {part: len(split) for part, split in dataset.splits.items()}
        seed = settings.seed if seed is None else seed
        known = fingerprint_of(dataset, manifest)
        return cls(data, rows, dataset.drawn, seed, settings.validation, known, arrays)

    def applied(self, arrays: Mapping[str, ArrayInfo]) -> dict[str, ArrayInfo]:
        """The arrays of a data set with the scales that they have in this run."""
        known = self.arrays
        return {
            name: replace(info, scale=known[name].scale_of(info.dtype)) if name in known else info
            for name, info in arrays.items()
        }

    def check(self, manifest: Manifest, where: str) -> None:
        """Raises RuntimeUserError if the record is that of another model."""
        wanted = {spec.name: spec.kind for spec in (*manifest.inputs, *manifest.targets)}
        found = {name: array.kind for name, array in self.arrays.items()}
        if wanted != found:
            raise RuntimeUserError(
                f"{where} does not belong to the program of the run", expected=_listed(wanted), found=_listed(found)
            )

    def faint_bytes(self) -> list[str]:
        """Warnings about bytes that become pixels by default although they are too small to be any, such as 0 and 1."""
        faint = {
            name: round(array.high / array.scale)
            for name, array in self.arrays.items()
            if array.stored == "u8" and array.scale == BYTE_SCALE and not array.chosen and 0 < array.high < DARK
        }
        return [
            RuntimeUserError(
                f"array {quoted(name)} has bytes up to {largest} and is divided by 255, as pixels are",
                expected="scale = none in the train block, if these are no pixels",
                found="no scale",
            ).as_warning()
            for name, largest in faint.items()
        ]

    def warnings(self, arrays: Mapping[str, np.ndarray], scales: Mapping[str, float], part: str) -> list[str]:
        """Warnings about values far outside of the range seen in training; `scales` are the factors of the arrays."""
        found = (
            self._warning(name, arrays[name], scales.get(name, 1.0), part) for name in self.arrays if name in arrays
        )
        return [text for text in found if text]

    def _warning(self, name: str, array: np.ndarray, scale: float, part: str) -> str:
        known = self.arrays[name]
        if known.classes is not None or not array.size:
            return ""
        low, high = range_of(array, scale)
        width = (known.high - known.low) or abs(known.high) or 1.0
        inside = known.low - FAR * width <= low and high <= known.high + FAR * width  # false for NaN
        largest, seen = max(-low, high), max(-known.low, known.high)
        rescaled = (abs(scale) < 1 or largest <= 1) and 0 < largest < FAINT * seen
        if inside and not rescaled:
            return ""
        stored = LANGUAGE_TYPES[array.dtype.name]
        return RuntimeUserError(
            f"array {quoted(name)} ({part}) has values far from those that the run was trained on",
            expected=f"values from {known.low:g} to {known.high:g} ({as_scaled(known.stored, known.scale)})",
            found="NaN" if math.isnan(low) else f"values from {low:g} to {high:g} ({as_scaled(stored, scale)})",
        ).as_warning(None if math.isnan(low) else _hint(known, low, high, scale))

    # The file ---------------------------------------------------------------------------------------------------------

    def encoded(self) -> bytes:
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def decoded(cls, text: str, where: str) -> RunData:
        """The contents of a file; raises RuntimeUserError, which calls it `where`, if they are not valid."""
        try:
            values = json.loads(text, object_pairs_hook=with_unique_names, parse_constant=_refuse)
            found = values.pop("format")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise _damaged(where, "it is not valid JSON with a format") from error
        if found != FORMAT or type(found) is not int:
            raise RuntimeUserError(
                f"{where} has another format",
                expected=str(FORMAT),
                found=quoted(str(found)),
                hint="a newer nnc reads it",
            )
        try:
            arrays = {name: _array(array) for name, array in values.pop("arrays").items()}
            data = cls(**values, arrays=arrays)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            raise _damaged(where, "its contents are not valid") from error
        if not (is_text(data.data) and is_text(data.fingerprint) and 1 <= len(arrays) <= MOST_ARRAYS):
            raise _damaged(where, "its data or arrays are not valid")
        share, parts = data.validation, {"training", "test"} if data.validation is None else {*PARTS}
        if not isinstance(data.rows, dict) or data.rows.keys() != parts or not all(map(_is_count, data.rows.values())):
            raise _damaged(where, "its numbers of rows are not valid")
        is_share = share is None or (type(share) is float and 0 < share < 1)
        if not is_share or type(data.drawn) is not bool or type(data.seed) is not int or not 0 <= data.seed < 2**31:
            raise _damaged(where, "its split is not valid")
        return data


def former(data: str, arrays: Mapping[str, ArrayInfo]) -> dict[str, ArrayInfo]:
    """The scales of runs without data.json: images of the built-in data sets were scaled, and no other arrays."""
    return {
        name: replace(info, scale=BYTE_SCALE if data in BUILT_IN and info.shape and info.dtype in WHOLE else 1.0)
        for name, info in arrays.items()
    }


def range_of(array: np.ndarray, scale: float) -> tuple[float, float]:
    """The least and the largest value, multiplied by the scale; NaN if there is one. Infinite values become finite."""
    low, high = sorted((float(array.min()) * scale, float(array.max()) * scale))
    return (low, high) if low != low else (max(low, -LARGEST), min(high, LARGEST))


def scales_for_prediction(
    run: RunData | None, data: str, arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]
) -> dict[str, float]:
    """The factors of given arrays for the inputs of a run."""
    infos = {name: ArrayInfo(LANGUAGE_TYPES[array.dtype.name], array.shape[1:]) for name, array in arrays.items()}
    settled = run.applied(infos) if run else former(data, infos)
    return {spec.name: settled[spec.name].scale or 1.0 for spec in inputs}


def fingerprint_of(dataset: Dataset, manifest: Manifest) -> str:
    """SHA-256 of the values that the model sees, in rows at equal distances; the same however arrays are stored."""
    result = hashlib.sha256()
    for part, split in dataset.splits.items():
        for name in sorted(manifest.dtypes):
            array, scale = split.arrays[name], manifest.scales.get(name, 1.0)
            width = max(1, math.prod(array.shape[1:]))
            result.update(f"{part} {name} {len(array)} {width}\n".encode())
            count = min(SAMPLED_ROWS, max(FEWEST_ROWS, SAMPLED_VALUES // width))
            rows = np.unique(np.linspace(0, len(split) - 1, count).astype(np.int64))
            at_once = max(1, HASHED_AT_ONCE // width)
            for start in range(0, len(rows), at_once):
                with np.errstate(all="ignore"):
                    result.update((array[rows[start : start + at_once]].astype("<f8") * scale).tobytes())
    return result.hexdigest()


def about(stored: Mapping[str, ArrayInfo], manifest: Manifest) -> str:
    """`10 classes; image u8 / 255, label u8; 1,234 parameters`, of a program that was compiled for stored arrays."""
    classes = [manifest.classes[spec.name] for spec in manifest.targets if spec.name in manifest.classes]
    counts = [f"{count:,} classes" for count in classes[:MOST_SHOWN]]
    names = [spec.name for spec in (*manifest.inputs, *manifest.targets)]
    arrays = [f"{name} {as_scaled(stored[name].dtype, manifest.scales.get(name, 1.0))}" for name in names]
    sizes = [math.prod(size or 1 for size in spec.shape) for spec in manifest.variables if spec.kind == "param"]
    return "; ".join(filter(None, [", ".join(counts), shortened(arrays, MOST_SHOWN), f"{sum(sizes):,} parameters"]))


def as_scaled(stored: str, scale: float) -> str:
    """`u8 / 255`, `f32`, `i32 * 0.5`"""
    return stored if scale == 1 else f"{stored} / 255" if scale == BYTE_SCALE else f"{stored} * {scale:g}"


# Parts of them --------------------------------------------------------------------------------------------------------


def _hint(known: RunArray, low: float, high: float, scale: float) -> str:
    if known.scale == BYTE_SCALE and scale == 1 and low >= 0 and high <= 1 / BYTE_SCALE:
        return "the run divided bytes by 255: divide these values by 255 as well, or store them as u8"
    if known.chosen and scale != 1:
        return f"the train block of the run gives the scale {scale:g}, for these values as well"
    if abs(scale) < 1 and known.low <= low / scale and high / scale <= known.high:
        return "store as floats what is not to be scaled"
    return "were they scaled in the same way as the data of the run?"


def _array(values: Mapping[str, Any]) -> RunArray:
    """Raises TypeError or ValueError for values that are not valid."""
    array = RunArray(**values)
    numbers = (array.scale, array.low, array.high)
    if not all(type(number) is float and math.isfinite(number) for number in numbers) or not array.scale:
        raise ValueError("numbers")
    if array.kind not in ("input", "target") or array.stored not in STORED or type(array.chosen) is not bool:
        raise ValueError("kinds")
    if array.low > array.high or not (array.classes is None or (type(array.classes) is int and array.classes >= 1)):
        raise ValueError("ranges")
    return array


def is_text(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_TEXT and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not strict JSON")


def _damaged(where: str, problem: str) -> RuntimeUserError:
    return RuntimeUserError(
        f"{where} is damaged: {problem}", hint="without this file, arrays mean what they did before it existed"
    )


def _listed(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{kind} {quoted(name)}" for name, kind in sorted(kinds.items())[:10])
