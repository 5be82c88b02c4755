"""Time by kernel on a GPU, as `profiler` measures it on the CPU.

The clock is the GPU's own, read behind each kernel. While a step is queued, the GPU is held back: most kernels run for
less time than Python takes to launch the next, and would otherwise be charged with waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from runtime.cpu.profiler import TRIES, Ceilings, Measured, ceilings, means, quicker_half, typical
from runtime.gpu import cuda
from runtime.gpu.device_program import STEPS_PER_GRAPH, DeviceProgram, on_device
from runtime.program import Arrays

COPIED = 1 << 30  # bytes: many times the cache
SIDE = 4096  # of the matrices of the large product
TICKS = 500  # to measure what one takes
HELD = 2  # times as long as queueing took before
FEWEST_LAUNCHES = 5  # of a graph

Queue = Callable[[], object]  # hands work to the GPU


def measure_ceilings() -> Ceilings:
    source, target = cuda.zeros(COPIED), cuda.zeros(COPIED)
    a = on_device(np.random.default_rng(0).random((SIDE, SIDE), np.float32))
    product = on_device(np.zeros((SIDE, SIDE), np.float32))
    copy_seconds = min(durations(lambda: cuda.copy(target, source), TRIES))
    product_seconds = min(durations(lambda: cuda.matmul(a, a, product), TRIES))
    return ceilings(f"{cuda.device_name()} at best", COPIED, SIDE, copy_seconds, product_seconds)


def measure(
    plain: DeviceProgram, timed: DeviceProgram, graph: str, arrays: Arrays, kernels: int, steps: int
) -> Measured:
    """Runs steps of both programs, which differ in the clock alone, on one batch. `arrays` fit the graph's inputs."""
    step, timed_step = (step_of(program, graph, arrays) for program in (plain, timed))
    launched = durations(step, steps)
    replay = cuda.capture(lambda: [step() for _ in range(STEPS_PER_GRAPH)]).launch
    replayed = durations(replay, max(steps // STEPS_PER_GRAPH, FEWEST_LAUNCHES))
    clock: cuda.Clock = timed.bind(graph, timed.batch)[0].__globals__["clock"]
    timed_step()  # this compiles kernels and makes events
    laps = [held(timed_step, clock) for _ in range(steps)]
    kept = quicker_half(laps, key=lambda step: sum(spent for lap in step for _, spent in lap))
    own = tick_nanoseconds()
    return Measured(*means(kept, kernels, own), typical(replayed) / STEPS_PER_GRAPH, steps, typical(launched))


def step_of(program: DeviceProgram, graph: str, arrays: Arrays) -> Queue:
    """What queues a step: the first examples, which lie on the GPU, are copied to the inputs, and the graph runs."""
    run, inputs, _ = program.bind(graph, program.batch)
    batch = [
        (view, on_device(arrays[name].take(np.arange(program.batch), 0, mode="wrap"))) for name, view in inputs.items()
    ]

    def step() -> None:
        for view, examples in batch:
            cuda.copy(view, examples)
        run()

    return step


def durations(queue: Queue, times: int) -> list[float]:
    """Seconds from the end of one call's work to the end of the next one's, after a call that is not counted."""
    queue()
    clock = cuda.Clock()
    tick = clock.start()
    for _ in range(times + 1):
        queue()
        tick(0)
    (lap,) = clock.read()
    return [nanoseconds / 1e9 for _, nanoseconds in lap[1:]]


def held(queue: Queue, clock: cuda.Clock) -> list[list[tuple[int, float]]]:
    """What a clock has measured in work that is all queued before the first of it runs."""
    cuda.synchronize()
    begun = perf_counter()
    queue()
    seconds = perf_counter() - begun
    clock.read()
    cuda.hold(HELD * seconds)
    queue()
    return clock.read()


def tick_nanoseconds() -> float:
    """What a tick gives to a kernel that takes no time."""
    clock = cuda.Clock()

    def ticks() -> None:
        tick = clock.start()
        for _ in range(TICKS):
            tick(0)

    ticks()
    clock.read()  # it has its events now
    (lap,) = held(ticks, clock)
    return float(np.median([nanoseconds for _, nanoseconds in lap]))
