"""What code can be made for: a pipeline of passes, where tensors live, and how the source is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.passes.pipeline import PIPELINES, Pass
from compiler.planning.memory import Placement


@dataclass(frozen=True)
class Target:
    """One of them. `tiles`: regions run in tiles; `on_host`: graphs that NumPy runs in its place."""

    name: str
    placement: Placement
    generate: Callable[..., str]
    tiles: bool
    on_host: tuple[str, ...] = ()

    @property
    def pipeline(self) -> Sequence[Pass]:
        return PIPELINES[self.name]


def find_target(name: str) -> Target:
    """The target of a name; only its own code is imported."""
    if name == "cupy":
        from compiler.targets.cupy import writer as cupy

        # Initial weights are drawn once, by what cannot be computed number by number: normal numbers, QR.
        return Target(name, cupy.PLACEMENT, cupy.generate, tiles=False, on_host=("init",))
    from compiler.targets.numpy import ops as numpy_ops
    from compiler.targets.shared import writer as numpy

    return Target(name, numpy_ops.PLACEMENT, numpy.generate, tiles=True)
