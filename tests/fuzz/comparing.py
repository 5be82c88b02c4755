"""How results are compared: exact shapes, NaN in the same places, tolerances, and whether a difference is significant.

At a tie of a comparison or after cancellation, float32 and float64 may legitimately differ by more. The interpreter,
run with rounding noise in every node, then differs from itself just as much: the program is unstable, not a mismatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.ir.interpreter import Arrays
from tests.fuzz.trajectories import noise

NOISY_RUNS = 6
MARGIN = 30.0  # times the spread under noise


@dataclass(frozen=True)
class Tolerance:
    """`rtol` is relative to each element, `scale` to the largest one. `noise`: the relative error of a node."""

    rtol: float
    scale: float
    noise: float


FLOAT32 = Tolerance(1e-4, 1e-5, 1.2e-7)  # generated code against the interpreter
FLOAT64 = Tolerance(1e-10, 1e-12, 4e-16)  # the interpreter against itself


def problem(found: Sequence[Arrays], expected: Sequence[Arrays], tolerance: Tolerance) -> str:
    """The first difference in words; empty if there is none."""
    for i, (given, wanted) in enumerate(zip(found, expected, strict=True)):
        for name, reference in wanted.items():
            if text := difference(given.get(name), reference, tolerance):
                return f"run {i}: {name}: {text}"
    return ""


def difference(array: np.ndarray | None, reference: np.ndarray, tolerance: Tolerance) -> str:
    if array is None:
        return "missing"
    if array.shape != reference.shape:
        return f"shape {list(array.shape)}, expected {list(reference.shape)}"
    if array.dtype.kind != reference.dtype.kind:
        return f"dtype {array.dtype}, expected {reference.dtype}"
    if np.array_equal(array, reference):
        return ""
    if array.dtype.kind != "f":
        wrong = array != reference
    else:
        finite = reference[np.isfinite(reference)]
        atol = tolerance.scale * max(1.0, float(np.abs(finite).max(initial=0.0)))
        with np.errstate(all="ignore"):
            wrong = ~np.isclose(array, reference, tolerance.rtol, atol, equal_nan=True)
    if not wrong.any():
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{int(wrong.sum())} of {wrong.size} elements, first at {list(at)}: {array[at]}, expected {reference[at]}"


def finite(results: Sequence[Arrays], largest: float = 1e30) -> bool:
    """Whether all numbers are finite, and would be in float32, with a margin for intermediate results."""
    return all(
        bool((np.abs(x) < largest).all())
        for arrays in results
        for x in arrays.values()
        if x.dtype.kind == "f" and x.size
    )


def unstable(
    interpret: Callable[[], Sequence[Arrays]], found: Sequence[Arrays], expected: Sequence[Arrays], tolerance: Tolerance
) -> bool:
    """Whether rounding alone explains the difference: noisy runs deviate as far, or decide differently."""
    noisy = []
    for seed in range(NOISY_RUNS):
        with noise(seed, tolerance.noise):
            noisy.append(interpret())
    return all(
        explained(given.get(name), reference, [run[i].get(name) for run in noisy if i < len(run)], tolerance)
        for i, (given, wanted) in enumerate(zip(found, expected, strict=True))
        for name, reference in wanted.items()
    )


def explained(
    array: np.ndarray | None, reference: np.ndarray, others: Sequence[np.ndarray | None], tolerance: Tolerance
) -> bool:
    noisy = [other for other in others if other is not None]
    if len(noisy) < len(others):
        return True  # rounding decides whether an index leaves its table
    if array is None or not difference(array, reference, tolerance):
        return array is not None
    if array.shape != reference.shape or array.dtype.kind != reference.dtype.kind:
        return False
    if array.dtype.kind != "f":
        return any(not np.array_equal(other, reference) for other in noisy)
    with np.errstate(all="ignore"):
        spread = max(float(np.abs(other - reference).max(initial=0.0)) for other in noisy)
        return not np.isfinite(spread) or bool((np.abs(array - reference) <= MARGIN * spread).all())
