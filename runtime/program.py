"""A compiled program in memory: its manifest, the arena, and the functions of the generated source bound to the arena.

The compiler hands over plain data (a manifest) and Python source. For each graph the source defines a function
`bind_GRAPH(arena, batch)`, which makes views of the arena and returns `run, inputs, outputs`: a function without
arguments that runs the graph once, the views to fill before it, and the views to read after it.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from runtime.allowed import CPU_PROGRAMS, AllowList, checked_code
from runtime.errors import IndexOutside

Arrays = dict[str, np.ndarray]
Bound = tuple[Callable[[], None], Arrays, Arrays]  # runs a graph once, its inputs to fill, its results to read
Bind = Callable[[Any, int], Bound]  # takes the arena and the number of examples

ALIGNMENT = 64  # bytes: of the arena and of every tensor in it
INFERENCE = ("evaluate", "predict")  # graphs that change no variable
FIRST_EXAMPLE = "batch.first"  # optional input of those two: the place in the data of the batch's first example
METRICS = "metrics"  # optional graph: what follows from the totals over all data, which are its inputs, in f64
PREPARE = "prepare"  # optional graph: computes values that those two need and that depend on variables only
COMBINE = {"sum": np.add, "max": np.maximum, "min": np.minimum}  # totals of metrics over batches; NaN stays NaN
PREFIX = "bind_"
FLOATS = ("f32", "f64")
# Outputs of graphs in CUDA or C that begin with this are an i64: 0, or for the first index outside its table
# (LAST_PLACE - place) * PLACES + index - LEAST_INDEX.
CHECK = "check."
LAST_PLACE, PLACES, LEAST_INDEX = 2**31 - 1, 2**32, -(2**31)
# By NumPy's name:
LANGUAGE_TYPES = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "uint8": "u8", "bool": "bool"}


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor; `None` in a shape is the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    kind: str  # input, target, output, param, state, slot or counter


@dataclass(frozen=True)
class Settings:
    """The resolved train block, except for what is compiled into the step."""

    data: str = "digits"
    batch: int = 128
    epochs: int = 1
    seed: int = 0
    shuffle: bool = True
    patience: int | None = None  # epochs without a better test loss, or validation loss, before training stops
    validation: float | None = None  # share of the training rows that are set apart for patience and the best epoch
    checkpoint: int = 1  # epochs between checkpoints


@dataclass(frozen=True)
class IndexCheck:
    """A check of indices that a device reports as a number: the place in the model, the layer, the size of the table,
    and how many indices an example has, 0 if they do not belong to examples."""

    place: str
    layer: str
    size: int
    each: int

    def error(self, code: int) -> IndexOutside:
        """The error for a number other than 0."""
        counted, index = divmod(code, PLACES)
        example = (LAST_PLACE - counted) // self.each if self.each else None
        return IndexOutside(index + LEAST_INDEX, self.size, example, self.place, self.layer)


@dataclass(frozen=True)
class Manifest:
    """Everything that the runtime knows about a program besides its source: plain data that can be written as JSON."""

    model: str
    inputs: tuple[TensorSpec, ...]
    targets: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variables: tuple[TensorSpec, ...]
    metrics: tuple[str, ...] = ()
    totals: Mapping[str, str] = field(default_factory=dict)  # outputs of steps -> how they combine: sum, max or min
    classes: Mapping[str, int] = field(default_factory=dict)  # integer target or input -> number of valid values
    scales: Mapping[str, float] = field(default_factory=dict)  # float input or target -> factor of its stored values
    chosen_scales: tuple[str, ...] = ()  # of these, the inputs and targets whose factor the train block gives
    checks: Mapping[str, IndexCheck] = field(default_factory=dict)  # by the output of a graph that reports it
    settings: Settings = field(default_factory=Settings)
    optimizer: str = ""  # as written in the train block, for hints

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtypes that arrays are read for: those that the graphs take, but f32 for integers that are scaled."""
        specs = (*self.inputs, *self.targets)
        return {s.name: "f32" if s.name in self.scales and s.dtype not in FLOATS else s.dtype for s in specs}


@dataclass(frozen=True)
class Executable:
    """Generated source with the sizes that it was planned for."""

    source: str
    name: str  # shown in tracebacks
    arena_bytes: int
    batch: int  # the largest batch that fits the arena
    target: str
    outside_bytes: int = 0  # that the code of a step, an evaluation or a prediction allocates outside of the arena
    starting_bytes: int = 0  # the arena as far as the initial values need it, and all that computing them allocates
    initializer: Executable | None = None  # the graphs that the target leaves to the host: initial values, METRICS
    passes: tuple[str, ...] = ()  # that were run


def load_functions(executable: Executable, allowed: AllowList = CPU_PROGRAMS) -> dict[str, Bind]:
    """Runs the generated module; the functions that bind its graphs, by graph. Tracebacks show lines of the source.

    Raises RefusedSource for what is not `allowed`.
    """
    code = checked_code(executable.source, executable.name, allowed)
    lines = executable.source.splitlines(keepends=True)
    linecache.cache[executable.name] = (len(executable.source), None, lines, executable.name)
    namespace: dict[str, Any] = {"__name__": "nnc_generated"}
    exec(code, namespace)
    return {name.removeprefix(PREFIX): value for name, value in namespace.items() if name.startswith(PREFIX)}


def aligned_zeros(size: int) -> np.ndarray:
    """A zeroed byte array whose first byte is aligned for vector loads."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def examples_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a graph that have one row for each example."""
    return {name: view for name, view in inputs.items() if name != FIRST_EXAMPLE}


class BoundGraphs:
    """The graphs of a program, bound to one arena. The arena has room for batches of up to `batch` examples."""

    def __init__(self, functions: Mapping[str, Bind], arena: Any, batch: int):
        self.functions, self.arena, self.batch = functions, arena, batch
        self.bound: dict[tuple[str, int], Bound] = {}

    def bind(self, graph: str, batch: int) -> Bound:
        """(run, inputs, outputs) of a graph at a batch size up to the planned one; views are made once.

        `evaluate` and `predict` are bound to the variables as they are now: bind again after they have changed.
        """
        self.prepare(graph)
        return self.views(graph, batch)

    def prepare(self, graph: str) -> None:
        """Computes what a graph needs that depends on the variables, as they are now."""
        if graph in INFERENCE and PREPARE in self.functions:
            self.views(PREPARE, 1)[0]()

    def views(self, graph: str, batch: int) -> Bound:
        """(run, inputs, outputs) of a graph that is already prepared, or that is not going to be run."""
        if not 1 <= batch <= self.batch:
            raise ValueError(f"batch {batch} outside 1 … {self.batch}")
        if (graph, batch) not in self.bound:
            self.bound[graph, batch] = self.functions[graph](self.arena, batch)
        return self.bound[graph, batch]

    def inputs(self, graph: str, batch: int) -> Arrays:
        """The inputs and targets of a graph, as views to fill."""
        return self.views(graph, batch)[1]

    def run(self, graph: str, batch: int) -> Arrays:
        """Runs a graph once and returns views of its results; the next run overwrites them."""
        run, _, outputs = self.bind(graph, batch)
        run()
        return outputs

    def follow(self, totals: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What follows from totals over all data: numbers, or nested lists of them, by name."""
        run, inputs, outputs = self.views(METRICS, 1)
        for name, total in totals.items():
            inputs[name][...] = total
        run()
        return {name: view.tolist() for name, view in outputs.items()}

    def variables(self) -> Arrays:
        """Live views of params, states, slots and counters by name."""
        return self.inputs("variables", 1)

    def initialize(self, seed: int) -> None:
        """Sets params, states, slots and counters to their initial values for a seed."""
        variables = self.variables()
        variables["seed"][...] = seed
        variables["step"][...] = 0
        self.run("init", 1)


class LoadedProgram(BoundGraphs):
    """A compiled program that is ready to run on the CPU."""

    allocate: Callable[[int], Any] = staticmethod(aligned_zeros)
    allowed: AllowList = CPU_PROGRAMS

    def __init__(self, executable: Executable, manifest: Manifest):
        super().__init__(
            load_functions(executable, self.allowed), self.allocate(executable.arena_bytes), executable.batch
        )
        self.executable, self.manifest = executable, manifest

    def conditions(self) -> dict[str, Any]:
        """What the bits of its results depend on, besides the program, its data and training/conditions.py."""
        return {"target": self.executable.target, "passes": [*self.executable.passes]}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets all variables."""
        for name, view in self.variables().items():
            view[...] = arrays[name]


class SplitProgram(LoadedProgram):
    """A program of a target that leaves graphs to the host: initial values, and what follows from totals."""

    def load_host(self) -> LoadedProgram:
        """The graphs that run as NumPy code on the CPU, with an arena of their own."""
        assert self.executable.initializer is not None
        return LoadedProgram(self.executable.initializer, self.manifest)

    @cached_property
    def host(self) -> LoadedProgram:
        return self.load_host()

    def initialize(self, seed: int) -> None:
        """Sets all variables to their initial values for a seed: the same bits on every target."""
        host = self.load_host()  # not kept, since its arena has another copy of all variables
        host.initialize(seed)
        self.assign(host.variables())

    def follow(self, totals: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """As for NumPy, with the same bits on every target."""
        return self.host.follow(totals)
