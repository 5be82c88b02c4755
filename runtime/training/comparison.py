"""A comparison of two run folders, bit for bit: everything in their checkpoints, and their logs.

safetensors is imported late, for a quick start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import quoted
from runtime.training.run_folder import RunFolder

IN_METADATA = ("epoch", "best_epoch", "best_loss")


def differences(one: RunFolder, other: RunFolder) -> Iterator[str]:
    """The first tensor that differs in each checkpoint, and the first line of the log; empty if all is the same.

    Only the time of day and the duration of training may differ.
    """
    for first, second in ((one.last, other.last), (one.best, other.best)):
        if first.exists() and second.exists():
            yield from _in_checkpoints(first, second)
        elif first.exists() or second.exists():
            yield f"{first.name} is in only one run"
    for index, (mine, yours) in enumerate(zip_longest(epochs(one), epochs(other)), 1):
        if mine != yours:
            yield f"line {index} of the epochs in the log: {json.dumps(mine)} and {json.dumps(yours)}"
            return


def tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a checkpoint by name, and its metadata on the position in training."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        metadata = file.metadata()
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, {n: metadata[n] for n in IN_METADATA}


def epochs(run: RunFolder) -> list[dict[str, Any]]:
    """The epochs in a log, without their duration."""
    records = map(json.loads, run.log.read_text().splitlines())
    return [{**record, "seconds": None} for record in records if "epoch" in record]


def _in_checkpoints(one: Path, other: Path) -> Iterator[str]:
    """The first tensor that differs, or else the first entry of the metadata."""
    (mine, my_metadata), (yours, your_metadata) = tensors(one), tensors(other)
    for name in {**mine, **yours}:
        if name not in mine or name not in yours:
            yield f"tensor {quoted(name)} of {one.name} is in only one run"
            return
        if difference := _in_tensors(mine[name], yours[name]):
            yield f"tensor {quoted(name)} of {one.name}: {difference}"
            return
    for name in IN_METADATA:
        if my_metadata[name] != your_metadata[name]:
            yield f"{name} of {one.name}: {my_metadata[name]} and {your_metadata[name]}"
            return


def _in_tensors(one: np.ndarray, other: np.ndarray) -> str:
    """The difference of two tensors in their bits; empty if there is none."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{one.dtype.name}{list(one.shape)} and {other.dtype.name}{list(other.shape)}"
    bits = np.dtype(f"u{one.itemsize}")
    wrong = np.flatnonzero(np.ravel(one).view(bits) != np.ravel(other).view(bits))
    if not len(wrong):
        return ""
    place = [int(index) for index in np.unravel_index(wrong[0], one.shape)]
    values = f"{np.ravel(one)[wrong[0]]!s} and {np.ravel(other)[wrong[0]]!s}"
    return f"{len(wrong):,} of {one.size:,} values differ, the first at {place}: {values}"
