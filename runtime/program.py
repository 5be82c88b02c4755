"""A compiled program in memory: its manifest, the arena, and the functions of the generated source bound to it.

The compiler hands over plain data (a manifest) and Python source. The source defines, for each graph, a function
`bind_GRAPH(arena, batch)` that makes views of the arena and returns `run, inputs, outputs`: a function of no arguments
that executes the graph once, and the views to fill before it and to read after it.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.allowed import checked_code

if TYPE_CHECKING:
    from runtime.feeding import Runner

Arrays = dict[str, np.ndarray]
ALIGNMENT = 64
INFERENCE = ("evaluate", "predict")  # graphs that change no variable
PREPARE = "prepare"  # computes, where it exists, what those need of variables alone


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor; `None` in a shape is the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    kind: str  # input, target, output, metric, param, state, slot or counter


@dataclass(frozen=True)
class Settings:
    """The resolved train block, less what is compiled into the step."""

    data: str = "digits"
    batch: int = 128
    epochs: int = 1
    seed: int = 0
    shuffle: bool = True
    patience: int | None = None  # epochs without a better test loss before training stops
    checkpoint: int = 1  # epochs between checkpoints


@dataclass(frozen=True)
class Manifest:
    """What the runtime must know of a program: JSON-able, and all that stands between compiler and runtime."""

    model: str
    inputs: tuple[TensorSpec, ...]
    targets: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variables: tuple[TensorSpec, ...]
    metrics: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)  # integer target or input -> number of valid values
    settings: Settings = field(default_factory=Settings)
    optimizer: str = ""  # as the train block has it, for advice


@dataclass(frozen=True)
class Executable:
    """Generated source with the sizes it was planned for."""

    source: str
    name: str  # shown in tracebacks
    arena_bytes: int
    batch: int  # the largest batch that fits the arena
    target: str = "numpy"
    initializer: Executable | None = None  # of another target: what sets the initial values, in NumPy
    passes: tuple[str, ...] = ()  # that made it


def load_functions(executable: Executable) -> dict[str, Callable[..., Any]]:
    """Runs the generated module; tracebacks show its lines. Raises RefusedSource, see `runtime/allowed.py`."""
    code = checked_code(executable.source, executable.name)
    lines = executable.source.splitlines(keepends=True)
    linecache.cache[executable.name] = (len(executable.source), None, lines, executable.name)
    namespace: dict[str, Any] = {"__name__": "nnc_generated"}
    exec(code, namespace)
    return {name: value for name, value in namespace.items() if name.startswith("bind_")}


def aligned_zeros(size: int) -> np.ndarray:
    """A zeroed byte array whose first byte is aligned for vector loads."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


class Program:
    """A compiled program ready to run on the CPU."""

    allocate: Callable[[int], Any] = staticmethod(aligned_zeros)

    def __init__(self, executable: Executable, manifest: Manifest):
        self.manifest = manifest
        self.executable = executable
        self.batch = executable.batch
        self.arena = self.allocate(executable.arena_bytes)
        self._functions = load_functions(executable)
        self._bound: dict[tuple[str, int], tuple[Callable[[], None], Arrays, Arrays]] = {}

    def bind(self, graph: str, batch: int) -> tuple[Callable[[], None], Arrays, Arrays]:
        """(run, inputs, outputs) of a graph at a batch size up to the planned one; views are made once.

        `evaluate` and `predict` are bound to the variables as they are now: bind again when they have changed.
        """
        self.prepare(graph)
        return self.views(graph, batch)

    def prepare(self, graph: str) -> None:
        """Computes what a graph needs of the variables as they are now."""
        if graph in INFERENCE and f"bind_{PREPARE}" in self._functions:
            self.views(PREPARE, 1)[0]()

    def views(self, graph: str, batch: int) -> tuple[Callable[[], None], Arrays, Arrays]:
        """(run, inputs, outputs) of a graph that is prepared already, or whose inputs and outputs alone are wanted."""
        if not 1 <= batch <= self.batch:
            raise ValueError(f"batch {batch} outside 1 … {self.batch}")
        if (graph, batch) not in self._bound:
            self._bound[graph, batch] = self._functions[f"bind_{graph}"](self.arena, batch)
        return self._bound[graph, batch]

    def initialize(self, seed: int) -> None:
        """Sets params, states, slots and counters to their initial values for a seed."""
        variables = self.variables()
        variables["seed"][...] = seed
        variables["step"][...] = 0
        self.run("init", 1)

    def inputs(self, graph: str, batch: int) -> Arrays:
        """The inputs and targets of a graph, as views to fill."""
        return self.views(graph, batch)[1]

    def run(self, graph: str, batch: int) -> Arrays:
        """Executes a graph once and returns views of its results; the next run overwrites them."""
        run, _, outputs = self.bind(graph, batch)
        run()
        return outputs

    def variables(self) -> Arrays:
        """Live views of params, states, slots and counters by name."""
        return self.inputs("variables", 1)

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets all variables."""
        for name, view in self.variables().items():
            view[...] = arrays[name]

    def runner(self, graph: str, arrays: Arrays) -> Runner:
        """What runs a graph over examples that fit its inputs."""
        from runtime.feeding import HostRunner  # imported late: who compiles does not feed

        return HostRunner(self, graph, arrays)
