"""The time of a step, kernel by kernel: the source is generated again with a clock in it, and run.

A kernel is a single call in the source: an op, a region with all its tiles and threads, or a scan; on a GPU, a single
launch. A row of the table has the kernels of one name and one place in the model. It is compared with the peak of the
machine: bytes per second in a large copy, operations per second in a large product. On a GPU the step without a clock
is measured twice, as a CUDA graph and launched from Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from compiler.driver import Compilation, title_of
from compiler.elaborate.signatures import counted
from compiler.ir.graph import Node, Origin
from compiler.ir.op import VIEW
from compiler.planning.costs import Cost, cost_of, total
from compiler.targets.running import find_runtime
from compiler.targets.shared.writer import Kernel, Ticks
from compiler.targets.target import find_target
from runtime.cpu.profiler import Ceilings, Measured, random_arrays
from runtime.datasets.dataset import Dataset
from runtime.errors import IndexOutside, RuntimeUserError
from runtime.feeding import fitted
from runtime.program import METRICS, Executable

MOST_PLACES = 4  # shown in a row
RANDOM = "random numbers"


class Unit(NamedTuple):
    """The unit in which times are shown."""

    name: str
    in_second: float
    digits: int


MILLISECONDS, MICROSECONDS = Unit("ms", 1e3, 3), Unit("µs", 1e6, 1)


@dataclass(frozen=True)
class KernelRow:
    """The kernels of one name and place; all figures are per step."""

    name: str
    places: tuple[Origin, ...]
    calls: float
    seconds: float
    cost: Cost


@dataclass(frozen=True)
class Profile:
    """A graph of a program, measured."""

    file: str
    graph: str
    batch: int
    data: str  # the data set, or random numbers
    rows: Sequence[KernelRow]
    measured: Measured
    ceilings: Ceilings
    inside: Sequence[KernelRow] | None = None  # statements of regions and scans, summed over all threads

    @property
    def unit(self) -> Unit:
        return MILLISECONDS if self.measured.launched is None else MICROSECONDS


# Measuring ------------------------------------------------------------------------------------------------------------


def profile(compiled: Compilation, graph: str, dataset: Dataset | None, steps: int, inside: bool = False) -> Profile:
    """Runs steps of a graph, starting from the initial weights for the seed; without data, on random numbers."""
    rows, measured = measure_kernels(compiled, graph, dataset, steps)
    rows_inside = measure_kernels(compiled, graph, dataset, steps, inside=True)[0] if inside else None
    data = dataset.name if dataset else RANDOM
    batch, ceilings = compiled.executable.batch, find_runtime(compiled.executable.target).measure_ceilings()
    return Profile(compiled.tree.file, graph, batch, data, rows, measured, ceilings, rows_inside)


def measure_kernels(
    compiled: Compilation, graph: str, dataset: Dataset | None, steps: int, inside: bool = False
) -> tuple[list[KernelRow], Measured]:
    if graph == METRICS:
        raise RuntimeUserError(
            f"the graph {METRICS} runs once, after all batches, and is not measured",
            expected="another graph, such as train_step or evaluate",
            found=METRICS,
        )
    runtime = find_runtime(compiled.executable.target)
    executable, kernels = with_clock(compiled, graph, inside)
    plain, timed = (runtime.load(each, compiled.manifest, {}) for each in (compiled.executable, executable))
    timed.arena = plain.arena  # they run in turns
    plain.initialize(compiled.manifest.settings.seed)
    arrays = fitted(plain, graph, dataset.train.arrays, "training") if dataset else random_arrays(plain, graph)
    try:
        measured = runtime.measure(plain, timed, graph, arrays, len(kernels), steps)
    except IndexOutside as outside:
        if dataset is None:
            outside.row, outside.hint = "random data", "name the data with --data"
        raise
    return rows_of(kernels, measured, compiled.executable.batch), measured


def with_clock(compiled: Compilation, graph: str, inside: bool = False) -> tuple[Executable, list[Kernel]]:
    """The program with a clock in one of its graphs, and the kernels it measures: calls, or statements in loops."""
    kernels: list[Kernel] = []
    ticks = Ticks(inside=kernels) if inside else Ticks(calls=kernels)
    target = find_target(compiled.executable.target)
    plans, variables = target.plan(compiled.optimized, compiled.executable.batch)
    source = target.generate(title_of(compiled.tree, compiled.model), plans, variables, {graph: ticks})
    return replace(compiled.executable, source=source, name=f"{compiled.executable.name} with a clock"), kernels


def rows_of(kernels: Sequence[Kernel], measured: Measured | None, batch: int) -> list[KernelRow]:
    """Kernels grouped by name and place, the slowest first; in running order if they were not measured."""
    rows: dict[tuple[str, tuple[Origin, ...]], KernelRow] = {}
    figures = zip(measured.calls, measured.seconds, strict=True) if measured else [(1.0, 0.0)] * len(kernels)
    for kernel, (calls, seconds) in zip(kernels, figures, strict=True):
        cost, key = kernel_cost(kernel, batch), (kernel.name, tuple(places_of(kernel.nodes)))
        row = rows.setdefault(key, KernelRow(*key, 0, 0, Cost(0, 0)))
        costs = total([row.cost, Cost(round(calls * cost.bytes), round(calls * cost.operations))])
        rows[key] = KernelRow(*key, row.calls + calls, row.seconds + seconds, costs)
    return sorted(rows.values(), key=lambda row: -row.seconds)


def kernel_cost(kernel: Kernel, batch: int) -> Cost:
    if kernel.copied:
        return Cost(2 * kernel.copied.type.bytes_at(batch), 0)
    return total(cost_of(node, batch) for node in kernel.nodes)


def places_of(nodes: Iterable[Node]) -> Iterator[Origin]:
    """The places in the model that nodes and those in their bodies come from, each once."""
    yield from dict.fromkeys(node.origin for node in with_bodies(nodes) if node.origin)


def with_bodies(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes, with regions and scans replaced by the nodes in their bodies that compute something."""
    for node in nodes:
        if "body" in node.attributes:
            yield from with_bodies(inner for inner in node.body.nodes if VIEW not in inner.op.traits)
        else:
            yield node


# Showing --------------------------------------------------------------------------------------------------------------


def format_profile(profile: Profile) -> str:
    measured, ceilings = profile.measured, profile.ceilings
    lines = [
        f"{profile.file}: {profile.graph}, batch {profile.batch}, {counted(measured.steps, 'step')} on {profile.data}",
        f"{ceilings.machine}: {ceilings.gigabytes:.1f} GB/s in a copy of {ceilings.copied >> 20} MB, "
        f"{ceilings.gigaflops:.1f} GFLOP/s in a product of {ceilings.matrix_size} x {ceilings.matrix_size} matrices",
        "above 100% of GB/s: data from the cache",
        "",
        titles(profile),
        *(show_row(row, measured.step, profile) for row in profile.rows),
        "",
        *totals(profile),
    ]
    if profile.inside is not None:
        spent = sum(row.seconds for row in profile.inside)
        lines += ["", "inside regions and scans, time summed over all threads", titles(profile)]
        lines += [show_row(row, spent, profile) for row in profile.inside]
    return "\n".join(lines) + "\n"


def titles(profile: Profile) -> str:
    figures = f"{'GB/s':>7}  {'':>4}  {'GFLOP/s':>7}  {'':>4}"
    return f"{profile.unit.name:>10}  {'share':>6}  {'calls':>6}  {figures}  kernel and model lines"


def show_time(seconds: float, total_seconds: float, profile: Profile) -> str:
    """A time, and its share of the total."""
    unit = profile.unit
    return f"{seconds * unit.in_second:10.{unit.digits}f}  {seconds / total_seconds if total_seconds else 0:6.1%}"


def show_row(row: KernelRow, total_seconds: float, profile: Profile) -> str:
    time = f"{show_time(row.seconds, total_seconds, profile)}  {row.calls:6.0f}"
    bandwidth = rate(row.cost.bytes, row.seconds, profile.ceilings.gigabytes)
    speed = rate(row.cost.operations, row.seconds, profile.ceilings.gigaflops)
    return f"{time}  {bandwidth}  {speed}  {row.name}  {show_places(row.places, profile.file)}"


def rate(amount: int, seconds: float, ceiling: float) -> str:
    """Billions per second, and their share of the ceiling."""
    if not amount or not seconds:
        return f"{'–':>7}  {'':>4}"
    billions = amount / seconds / 1e9
    return f"{billions:7.1f}  {billions / ceiling:4.0%}"


def show_places(places: Sequence[Origin], file: str) -> str:
    """`5:15 conv2d_1, 5:58 batch_norm_1 (backward), and 2 more`"""
    if not places:
        return "made by the compiler"
    shown = [str(place).removeprefix(f"{file}:") for place in places[:MOST_PLACES]]
    return ", ".join(shown) + (f", and {len(places) - MOST_PLACES} more" if len(places) > MOST_PLACES else "")


def totals(profile: Profile) -> Iterator[str]:
    """The time in kernels, outside them, and of the whole step."""
    measured, kernels = profile.measured, sum(row.seconds for row in profile.rows)
    calls = sum(row.calls for row in profile.rows)
    outside, how = "batch assembly and the loop", ""
    if measured.launched is not None:
        outside, how = "batch copy and gaps between kernels", ", as a CUDA graph"
    lines = [
        (kernels, f"in kernels, {calls:.0f} calls"),
        (measured.step - kernels, f"outside kernels: {outside}"),
        (measured.step, f"whole step without the clock{how}, mean of the faster half"),
    ]
    if measured.launched is not None:
        lines.append((measured.launched, "the same without a CUDA graph, each kernel launched from Python"))
    for seconds, text in lines:
        yield f"{show_time(seconds, measured.step, profile)}  {text}"
