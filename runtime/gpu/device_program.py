"""A compiled program on a GPU: the same graphs and the same training as on the CPU, without copies to the host.

Examples, their order and the sums over them are in device memory. A step gathers its batch, runs the graph, and adds
loss and metrics to the sums; nothing is copied from or to the host, so several steps can be captured into one CUDA
graph. The sums are read at the end of an epoch, and now and then to check that the loss is still finite.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from itertools import chain
from math import inf, isfinite, prod
from time import perf_counter
from typing import Any

import numpy as np

from runtime.allowed import GPU_PROGRAMS
from runtime.feeding import Batches, NotFinite, Watch, averaged, interruptible, reported, runner_of
from runtime.gpu import cuda
from runtime.program import FIRST_EXAMPLE, Arrays, Executable, IndexCheck, Manifest, SplitProgram, examples_of

STEPS_PER_GRAPH = 16
CHECK_SECONDS = 1.0  # between checks of the loss if no progress is shown
STATE = ("position", "bad_end", "bad_loss", "bad_check", "bad_code", "sums")
NO_CHECKS: Mapping[str, IndexCheck] = {}
COMBINED_FROM = {"sum": 0.0, "max": -inf, "min": inf}  # totals of no batch
COMBINATIONS = {"sum": "t + x", "max": "(t >= x || t != t) ? t : x", "min": "(t <= x || t != t) ? t : x"}
Queue = Callable[[], object]  # queues work on the device and returns before it is done


class DeviceProgram(SplitProgram):
    """A compiled program that is ready to run on a GPU. Views are in device memory; arrays passed in and out are not.

    Without `graphs` each kernel is launched from Python: the same results, for debugging.
    """

    allocate = staticmethod(cuda.zeros)
    allowed = GPU_PROGRAMS

    def __init__(self, executable: Executable, manifest: Manifest, graphs: bool = True):
        cuda.check()
        super().__init__(executable, manifest)
        self.graphs = graphs

    def variables(self) -> Arrays:
        """Copies of params, states, slots and counters by name."""
        return {name: cuda.download(view) for name, view in self.inputs("variables", 1).items()}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, view in self.inputs("variables", 1).items():
            cuda.upload(view, arrays[name])


class DeviceRunner:
    """A Runner on a GPU."""

    def __init__(self, program: DeviceProgram, graph: str, arrays: Arrays):
        self.program, self.graph, self.arrays = program, graph, arrays
        self.examples = len(next(iter(arrays.values())))
        self._warm: set[int] = set()  # sizes of batches that have run
        self._queues: dict[tuple[int, int], Queue] = {}

    def batches(self, order: np.ndarray, size: int, received: Sequence[int] = ()) -> Batches:
        return interruptible(self._batches(order, size), received)

    def _batches(self, order: np.ndarray, size: int) -> Batches:
        self.program.prepare(self.graph)
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            run, inputs, outputs = self.program.views(self.graph, len(indices))
            for name, view in inputs.items():
                cuda.upload(view, np.array(start, np.int64) if name == FIRST_EXAMPLE else self.arrays[name][indices])
            run()
            results = {name: cuda.download(view) for name, view in outputs.items()}
            for name, check in self.checks.items():
                if code := results.pop(name).item():
                    outside = check.error(code)
                    outside.of_step(self.graph, indices, start // size + 1, -(-len(order) // size))
                    raise outside
            yield len(indices), results

    def means(
        self, order: np.ndarray, size: int, received: Sequence[int] = (), watch: Watch | None = None
    ) -> dict[str, Any]:
        self.program.prepare(self.graph)
        feed = self.feed
        feed.begin(order, size)
        steps, rest = divmod(len(order), size)
        launches = chain(self.advance(size, steps), self.advance(rest, min(rest, 1)))
        for _ in interruptible(launches if watch is None else watched(launches, watch, feed), received):
            pass
        sums, totals = feed.results(raising=watch is not None)
        found = {name: total / len(order) for name, total in zip(feed.names, sums, strict=True)}
        return reported(self.program, self.program.manifest.metrics, found, totals)

    @cached_property
    def feed(self) -> Feed:
        """The examples on the device; they are copied there on first use."""
        manifest, outputs = self.program.manifest, self.program.views(self.graph, 1)[2]
        totals = {name: (outputs[name].shape, how) for name, how in manifest.totals.items()}
        return Feed(self.arrays, averaged(manifest.metrics, manifest.totals), totals, self.graph, self.checks)

    @cached_property
    def checks(self) -> dict[str, IndexCheck]:
        """The checks of indices that the graph reports, by output."""
        outputs = self.program.views(self.graph, 1)[2]
        return {name: check for name, check in self.program.manifest.checks.items() if name in outputs}

    def advance(self, count: int, steps: int) -> Iterator[int]:
        """Queues steps of `count` examples; yields the number of steps of each launch."""
        if steps and count not in self._warm:
            self._step(count)()  # this compiles kernels and allocates workspaces, which cannot be captured
            self._warm.add(count)
            yield 1
            steps -= 1
        most = STEPS_PER_GRAPH if self.program.graphs else 1
        for length in [most] * (steps // most) + [1] * (steps % most):
            self._queue(count, length)()
            yield length

    def _queue(self, count: int, length: int) -> Queue:
        """A function that queues `length` steps of `count` examples with one launch."""
        if (count, length) not in self._queues:
            step = self._step(count)
            queue = cuda.capture(lambda: [step() for _ in range(length)]).launch if self.program.graphs else step
            self._queues[count, length] = queue
        return self._queues[count, length]

    def _step(self, count: int) -> Queue:
        """One step of `count` examples: gather, run, add up."""
        run, inputs, outputs = self.program.views(self.graph, count)
        gathers = [self.feed.gather(name, view) for name, view in examples_of(inputs).items()]
        if FIRST_EXAMPLE in inputs:
            gathers.append(self.feed.locate(inputs[FIRST_EXAMPLE]))
        add_up = self.feed.add_up(outputs, count)

        def step() -> None:
            for gather in gathers:
                gather()
            run()
            add_up()

        return step


runner_of.register(DeviceProgram, DeviceRunner)


def watched(launches: Iterator[int], watch: Watch, feed: Feed) -> Iterator[int]:
    """The same launches; waits for them now and then to show progress and to check that the loss is finite."""
    shown = isfinite(watch.interval)
    interval = watch.interval if shown else CHECK_SECONDS
    done, due = 0, perf_counter() + interval
    for length in launches:
        done += length
        if perf_counter() >= due:
            feed.results(raising=True)
            if shown:
                watch.show(done)
            due = perf_counter() + interval
        yield length


class Feed:
    """Examples on the device, their order, and sums over them.

    `state` has the position in the order, the position after the first batch whose loss was not finite or that had an
    index outside its table (0: none), that loss, the number of the check that found the index, counted from 1 (0:
    none), what it reported, the sums over examples of the results in `names`, and the `totals`: by name, the shape of
    each and how it combines over batches.
    """

    def __init__(
        self,
        arrays: Arrays,
        names: Sequence[str],
        totals: Mapping[str, tuple[tuple[int, ...], str]],
        graph: str = "",
        checks: Mapping[str, IndexCheck] = NO_CHECKS,
    ):
        self.graph, self.checks, self.rows = graph, checks, np.arange(0)
        self.names, self.size, self.combined = names, 0, {name: how for name, (_, how) in totals.items()}
        self.data = {name: on_device(array) for name, array in arrays.items()}
        self.order = on_device(np.arange(len(next(iter(arrays.values()))), dtype=np.int64))
        self.layout = np.dtype([
            ("position", np.int64, (1,)),
            ("bad_end", np.int64, (1,)),
            ("bad_loss", np.float64, (1,)),
            ("bad_check", np.int64, (1,)),
            ("bad_code", np.int64, (1,)),
            ("sums", np.float64, (len(names),)),
            *((name, np.float64, shape or (1,)) for name, (shape, _) in totals.items()),
        ])  # fmt: skip
        self.begun = np.zeros(1, self.layout)
        for name, how in self.combined.items():
            self.begun[name] = COMBINED_FROM[how]
        self.shapes = {name: shape for name, (shape, _) in totals.items()}
        self.state = on_device(self.begun.view(np.uint8))
        parts = {
            name: cuda.view(self.state, offset, part.base.type, part.shape)
            for name, (part, offset, *_) in (self.layout.fields or {}).items()
        }
        self.position, *self.bad, self.sums = map(parts.pop, STATE)
        self.totals = parts

    def begin(self, order: np.ndarray, size: int) -> None:
        """Starts over with an order and a batch size."""
        self.size, self.rows = size, order
        cuda.upload(self.order[: len(order)], order.astype(np.int64, copy=False))
        cuda.upload(self.state, self.begun.view(np.uint8))

    def gather(self, name: str, batch: Any) -> Queue:
        """A function that fills an input of a graph with the examples at the current position."""
        data, width = self.data[name], prod(batch.shape[1:])
        kernel = gather_kernel(batch.dtype.name)
        return lambda: kernel(data, self.order, self.position, width, batch, size=batch.size)

    def locate(self, place: Any) -> Queue:
        """A function that copies the current position to an input of a graph."""
        return lambda: cuda.copy(place.reshape(self.position.shape), self.position)

    def add_up(self, outputs: Arrays, count: int) -> Queue:
        """A function that adds the results of a batch to sums and totals, and moves the position to the next batch."""
        values = [outputs[name] for name in self.names]
        codes = [outputs[name] for name in self.checks]
        kernel = summing_kernel(tuple(value.dtype.name for value in values), len(codes))
        combine = [self.combine(name, outputs[name]) for name in self.totals]

        def add_up() -> None:
            kernel(*values, *codes, count, self.sums, self.position, *self.bad, size=1)
            for each in combine:
                each()

        return add_up

    def combine(self, name: str, value: Any) -> Queue:
        """A function that combines a total of a batch with that of the batches before."""
        kernel, total = combining_kernel(value.dtype.name, self.combined[name]), self.totals[name]
        return lambda: kernel(value, total, size=total.size)

    def results(self, raising: bool) -> tuple[list[float], Arrays]:
        """Waits for all queued work; the sums and totals so far.

        Raises IndexOutside for an index outside its table, and NotFinite if `raising`.
        """
        state = cuda.download(self.state).view(self.layout)[0]
        if state["bad_check"].any():
            outside = [*self.checks.values()][state["bad_check"].item() - 1].error(state["bad_code"].item())
            end = state["bad_end"].item()
            step = -(-end // self.size)
            outside.of_step(self.graph, self.rows[(step - 1) * self.size : end], step, -(-len(self.rows) // self.size))
            raise outside
        if raising and state["bad_end"].any():
            raise NotFinite(-(-state["bad_end"].item() // self.size), state["bad_loss"].item())
        totals = {name: state[name].reshape(shape) for name, shape in self.shapes.items()}
        return state["sums"].tolist(), totals


def on_device(array: np.ndarray) -> Any:
    """A copy of an array on the device."""
    copied = cuda.view(cuda.zeros(array.nbytes), 0, array.dtype.type, array.shape)
    cuda.upload(copied, array)
    return copied


@cache
def gather_kernel(dtype: str) -> Any:
    """batch[example] = data[order[position + example]], where an example is `width` numbers."""
    return cuda.ElementwiseKernel(
        f"raw {dtype} data, raw int64 order, raw int64 position, int32 width",
        f"raw {dtype} batch",
        "batch[i] = data[order[position[0] + i / width] * width + i % width];",
        f"gather_{dtype}",
    )


@cache
def combining_kernel(dtype: str, how: str) -> Any:
    """total = sum, max or min of total and value, in f64; NaN stays NaN."""
    return cuda.ElementwiseKernel(
        f"raw {dtype} value",
        "raw float64 total",
        f"const double x = value[i], t = total[i]; total[i] = {COMBINATIONS[how]};",
        f"combine_{how}_{dtype}",
    )


@cache
def summing_kernel(dtypes: tuple[str, ...], checks: int = 0) -> Any:
    """Adds the means of a batch to the sums, in f64 and in the order of the CPU; runs as one thread.

    The first step with an index outside its table, or a loss that is not finite, is noted.
    """
    values = "".join(f"raw {dtype} mean{k}, " for k, dtype in enumerate(dtypes))
    values += "".join(f"raw int64 code{k}, " for k in range(checks))
    found = "\n".join(f"if (!check && code{k}[0]) {{ check = {k + 1}; code = code{k}[0]; }}" for k in range(checks))
    sums = "\n".join(f"totals[{k}] += count * (double)mean{k}[0];" for k in range(len(dtypes)))
    return cuda.ElementwiseKernel(
        f"{values}int32 count",
        "raw float64 totals, raw int64 position, raw int64 bad_end, raw float64 bad_loss, raw int64 bad_check,"
        " raw int64 bad_code",
        f"""
        const double loss = mean0[0];
        long long check = 0, code = 0;
        position[0] += count;
        {found}
        if (bad_end[0] == 0 && (check || !(fabs(loss) <= {sys.float_info.max!r}))) {{
            bad_end[0] = position[0];
            bad_loss[0] = loss;
            bad_check[0] = check;
            bad_code[0] = code;
        }}
        {sums}
        """,
        "add_up",
    )
