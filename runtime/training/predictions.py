"""The files of `predict`: examples are read, outputs are written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.datasets import BUILT_IN, describe
from runtime.datasets.arrays import read_inputs, write_npz
from runtime.datasets.checks import check
from runtime.datasets.dataset import ArrayInfo
from runtime.errors import RuntimeUserError, quoted
from runtime.program import LANGUAGE_TYPES, TensorSpec
from runtime.training.checkpoint import write_atomically


def read_examples(path: str, inputs: Sequence[TensorSpec], data: str) -> dict[str, np.ndarray]:
    """The model's inputs by name from a `.npy` file (for a model with one input) or a `.npz` file.

    Integers for a float input are scaled like the training data `data`; floats are used as they are.
    """
    if path.lower().endswith(".npy") and len(inputs) > 1:
        names = ", ".join(quoted(spec.name) for spec in inputs)
        raise RuntimeUserError(
            f"{quoted(path)} is a single array", expected=f"a .npz file with the arrays {names}", found="a .npy file"
        )
    arrays = read_inputs(path, inputs[0].name)
    check({name: ArrayInfo(LANGUAGE_TYPES[a.dtype.name], a.shape[1:], 1.0) for name, a in arrays.items()}, inputs)
    scales = {name: info.scale for name, info in describe(data).items()} if data in BUILT_IN else {}
    return {spec.name: as_input(arrays[spec.name], spec, scales.get(spec.name, 1.0)) for spec in inputs}


def as_input(array: np.ndarray, spec: TensorSpec, scale: float) -> np.ndarray:
    if spec.dtype in ("f32", "f64") and array.dtype.kind != "f":
        return array.astype(np.float32) * np.float32(scale)
    return array


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
