"""Time by kernel on a GPU, as `runtime/cpu/profiler.py` measures it on the CPU.

The clock is that of the GPU, and is read after each kernel. The GPU sleeps while a step is queued: most kernels run for
less time than Python needs to launch the next one, and their time would otherwise include this wait.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from runtime.cpu.profiler import TRIES, Ceilings, Measured, ceilings, means, quicker_half, typical
from runtime.gpu import cuda
from runtime.gpu.device_program import STEPS_PER_GRAPH, DeviceProgram, Queue, on_device
from runtime.program import Arrays, examples_of

COPIED = 1 << 30  # bytes: many times the cache
MATRIX_SIZE = 4096  # rows and columns of the matrices of the large product
TICKS = 500  # to measure the time of one
SLEEP_FACTOR = 2  # times the time that queueing took before
FEWEST_LAUNCHES = 5  # of a graph


def measure_ceilings() -> Ceilings:
    source, target = cuda.zeros(COPIED), cuda.zeros(COPIED)
    a = on_device(np.random.default_rng(0).random((MATRIX_SIZE, MATRIX_SIZE), np.float32))
    product = on_device(np.zeros((MATRIX_SIZE, MATRIX_SIZE), np.float32))
    copy_seconds = min(durations(lambda: cuda.copy(target, source), TRIES))
    product_seconds = min(durations(lambda: cuda.matmul(a, a, product), TRIES))
    return ceilings(f"{cuda.device_name()} at best", COPIED, MATRIX_SIZE, copy_seconds, product_seconds)


def measure(plain: DeviceProgram, timed: DeviceProgram, graph: str, arrays: Arrays, parts: int, steps: int) -> Measured:
    """Runs steps of both programs, which differ only in the clock, on one batch. `arrays` fit the graph's inputs."""
    step, timed_step = (step_of(program, graph, arrays) for program in (plain, timed))
    launched = durations(step, steps)
    replay = cuda.capture(lambda: [step() for _ in range(STEPS_PER_GRAPH)]).launch
    replayed = durations(replay, max(steps // STEPS_PER_GRAPH, FEWEST_LAUNCHES))
    clock: cuda.DeviceClock = timed.bind(graph, timed.batch)[0].__globals__["clock"]
    timed_step()  # this compiles kernels and makes events
    laps = [queued_laps(timed_step, clock) for _ in range(steps)]
    quicker = quicker_half(laps, key=lambda step: sum(spent for lap in step for _, spent in lap))
    overhead = tick_nanoseconds()
    return Measured(*means(quicker, parts, overhead), typical(replayed) / STEPS_PER_GRAPH, steps, typical(launched))


def step_of(program: DeviceProgram, graph: str, arrays: Arrays) -> Queue:
    """Queues a step: copies the first examples, which are on the GPU, to the inputs, and runs the graph."""
    run, inputs, _ = program.bind(graph, program.batch)
    batch = [
        (view, on_device(arrays[name].take(np.arange(program.batch), 0, mode="wrap")))
        for name, view in examples_of(inputs).items()
    ]

    def step() -> None:
        for view, examples in batch:
            cuda.copy(view, examples)
        run()

    return step


def durations(queue: Queue, times: int) -> list[float]:
    """Seconds from the end of one call's work to the end of the next one's; a first call is not counted."""
    queue()
    clock = cuda.DeviceClock()
    tick = clock.start()
    for _ in range(times + 1):
        queue()
        tick(0)
    (lap,) = clock.read()
    return [nanoseconds / 1e9 for _, nanoseconds in lap[1:]]


def queued_laps(queue: Queue, clock: cuda.DeviceClock) -> list[list[tuple[int, float]]]:
    """The laps of a clock for work that is all queued before the first part of it runs."""
    cuda.synchronize()
    begun = perf_counter()
    queue()
    seconds = perf_counter() - begun
    clock.read()
    cuda.sleep(SLEEP_FACTOR * seconds)
    queue()
    return clock.read()


def tick_nanoseconds() -> float:
    """The time that a tick measures for a kernel that takes none."""
    clock = cuda.DeviceClock()

    def ticks() -> None:
        tick = clock.start()
        for _ in range(TICKS):
            tick(0)

    ticks()
    clock.read()  # its events exist now
    (lap,) = queued_laps(ticks, clock)
    return float(np.median([nanoseconds for _, nanoseconds in lap]))
