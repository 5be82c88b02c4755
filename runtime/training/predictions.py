"""The files of `predict`: examples are read, outputs are written."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.datasets.arrays import read_inputs, size_of_inputs, write_npz
from runtime.datasets.checks import INTEGERS, check
from runtime.datasets.dataset import Footprint
from runtime.datasets.npy import IN_MEMORY
from runtime.errors import RuntimeUserError, quoted
from runtime.program import Manifest, TensorSpec
from runtime.training.checkpoint import write_atomically
from runtime.training.run_data import RunData, scales_for_prediction

FLOATS = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
WRITTEN = 3  # times the bytes of all outputs: the arrays, the file in memory, and its bytes


def read_examples(path: str, inputs: Sequence[TensorSpec], run: RunData | None, data: str) -> dict[str, np.ndarray]:
    """The model's inputs by name from a `.npy` file (for a model with one input) or a `.npz` file.

    Arrays for a float input are scaled as in the run, whose data are `run`, or None and the name `data` for an old run.
    Values far from those in training are reported with a warning.
    """
    if path.lower().endswith(".npy") and len(inputs) > 1:
        names = ", ".join(quoted(spec.name) for spec in inputs)
        raise RuntimeUserError(
            f"{quoted(path)} is a single array", expected=f"a .npz file with the arrays {names}", found="a .npy file"
        )
    dtypes = {spec.name: spec.dtype for spec in inputs}
    arrays = read_inputs(path, inputs[0].name, dtypes, lambda types: check(types, inputs))
    scales = scales_for_prediction(run, data, arrays, inputs)
    for warning in run.warnings(arrays, scales, "given") if run else ():
        print(warning, file=sys.stderr)
    return {spec.name: as_input(arrays[spec.name], spec, scales[spec.name]) for spec in inputs}


def prediction_footprint(path: str, manifest: Manifest) -> Footprint:
    """The memory that the examples of a file and their outputs need, from headers.

    Examples are read, then converted; outputs are kept whole, and copied twice while they are written.
    """
    inputs = manifest.inputs
    dtypes = {spec.name: spec.dtype for spec in inputs}
    given = size_of_inputs(path, inputs[0].name, dtypes, manifest.chosen_scales)
    rows = given.rows or 0
    outputs = sum(
        IN_MEMORY[spec.dtype].itemsize * math.prod(rows if size is None else size for size in spec.shape)
        for spec in manifest.outputs
    )
    return replace(given, loading=max(given.loading, WRITTEN * outputs))


def as_input(array: np.ndarray, spec: TensorSpec, scale: float) -> np.ndarray:
    """The array as the compiled step would convert it.

    For a float input it is cast, then scaled. Bools become 0 and 1; for a bool input any number but 0 is true.
    """
    if spec.dtype in INTEGERS and array.dtype.kind == "b":
        return array.astype(INTEGERS[spec.dtype])
    if spec.dtype == "bool" and array.dtype.kind in "iu":
        return array != 0
    if spec.dtype not in FLOATS or (array.dtype.kind == "f" and scale == 1):
        return array
    dtype = FLOATS[spec.dtype]
    return array.astype(dtype) * dtype.type(scale)


def write_outputs(path: Path, outputs: Mapping[str, np.ndarray]) -> None:
    """Writes outputs atomically: `.npy` for one output, `.npz` for any number."""
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        write_npz(buffer, outputs)
    elif path.suffix == ".npy" and len(outputs) == 1:
        np.save(buffer, next(iter(outputs.values())))
    else:
        expected = ".npz" if len(outputs) > 1 else ".npy or .npz"
        raise RuntimeUserError(
            f"cannot write {len(outputs)} outputs to {quoted(str(path))}",
            expected=f"a file name that ends in {expected}",
            found=quoted(path.suffix),
        )
    write_atomically(path, buffer.getvalue())
