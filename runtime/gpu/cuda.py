"""The GPU, through CuPy: the functions that generated source calls, and those that the runtime needs of a device.

No other file imports CuPy. This one can be imported without CuPy and without a GPU; `check` reports what is missing and
is called first. All work is queued on one stream, in the order of the calls; `download`, `upload` and `synchronize`
wait for it, and so does `CapturedGraph.launch` while two launches are queued.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from runtime.cpu.kernels.basic import steps as steps  # views, which are the same on a GPU
from runtime.errors import RuntimeUserError
from runtime.gpu import cublas, gemm

os.environ["CUPY_ACCELERATORS"] = ""  # with them, kernels of CuPy would allocate memory
missing = ""
try:
    import cupy as module  # pyright: ignore[reportMissingImports]
except ImportError as error:
    module, missing = None, str(error)
cupy: Any = module  # its annotations do not cover its compiled parts

INSUFFICIENT_DRIVER, NO_DEVICE = 35, 100  # cudaError_t
INSTALL = "pip install 'cupy-cuda13x[ctk]>=14', or 'cupy-cuda12x[ctk]>=14' for a driver of CUDA 12 (see nvidia-smi)"
HIDDEN = "nvidia-smi lists the devices; CUDA_VISIBLE_DEVICES may hide them"
LAUNCHES_AHEAD = 2  # of a graph: enough to keep the GPU busy, and soon finished after a signal


# The device -----------------------------------------------------------------------------------------------------------


def check() -> None:
    """Raises RuntimeUserError with what is missing if no GPU can be used; else makes our stream the current one."""
    if cupy is None:
        raise RuntimeUserError("--gpu needs CuPy", expected="an installed CuPy", found=missing, hint=INSTALL)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise no_device(error) from error
    if not count:
        raise RuntimeUserError("--gpu needs an NVIDIA GPU", expected="a device", found="none", hint=HIDDEN)
    streams().main.use()
    check_compiler()


def check_compiler() -> None:
    """Runs a first kernel: CuPy compiles kernels with parts of CUDA that may be missing."""
    try:
        copy_elements()(cupy.zeros(1), cupy.zeros(1))
    except (ImportError, OSError, RuntimeError, cupy.cuda.compiler.CompileException) as error:
        found, hint = str(error).partition("\n")[0], f"the parts of CUDA are installed together with CuPy by {INSTALL}"
        expected = "a device that answers, NVRTC, and the headers of CUDA"
        raise RuntimeUserError("CuPy cannot run a kernel", expected=expected, found=found, hint=hint) from error


def no_device(error: Any) -> RuntimeUserError:
    """The answer of CUDA to the request for its devices, as an error for the user."""
    runtime = cupy.cuda.runtime
    needed, known = runtime.runtimeGetVersion(), runtime.driverGetVersion()
    expected = f"a driver for CUDA {needed // 1000} or later, which the installed CuPy needs"
    if error.status == NO_DEVICE:
        return RuntimeUserError("--gpu needs an NVIDIA GPU", expected="a device", found="none", hint=HIDDEN)
    if error.status != INSUFFICIENT_DRIVER:
        return RuntimeUserError("the GPU cannot be used", expected="a device that answers", found=str(error))
    if not known:
        hint = f"install the driver of the GPU; then, if need be, {INSTALL}"
        return RuntimeUserError("--gpu needs the NVIDIA driver", expected=expected, found="no driver", hint=hint)
    found = f"a driver for CUDA {known // 1000}.{known % 1000 // 10}"
    hint = f"update the driver, or install a CuPy for this one: {INSTALL}"
    return RuntimeUserError("the NVIDIA driver is too old", expected=expected, found=found, hint=hint)


def device_name() -> str:
    runtime = cupy.cuda.runtime
    return runtime.getDeviceProperties(runtime.getDevice())["name"].decode()


def free_bytes() -> int:
    """Bytes that can still be allocated."""
    return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


def zeros(nbytes: int) -> Any:
    """A new array u8 of zeros; raises RuntimeUserError if there is not enough memory."""
    try:
        return cupy.zeros(nbytes, np.uint8)
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise RuntimeUserError(
            "the GPU does not have enough memory",
            expected=f"{nbytes:,} bytes free",
            found=f"{free_bytes():,} bytes",
            hint="a smaller --batch needs less",
        ) from error


def upload(view: Any, array: np.ndarray) -> None:
    """Copies an array of the same shape and dtype to the device."""
    view.set(array)
    synchronize()  # CUDA may read the array as long as the copy is queued


def download(view: Any) -> np.ndarray:
    return view.get()


def synchronize() -> None:
    """Waits until all queued work is done."""
    streams().main.synchronize()


# Streams and graphs ---------------------------------------------------------------------------------------------------


class Branch:
    """A stream that runs in parallel with another one, with the events of the fork before it and of the join after."""

    def __init__(self) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.fork, self.join = new_event(), new_event()


class Streams:
    """The main stream and its branches. The same place in a program uses the same streams every time."""

    def __init__(self) -> None:
        self.main = cupy.cuda.Stream(non_blocking=True)  # one that waits for CUDA's default stream cannot be captured
        self.idle: list[Branch] = []

    @contextmanager
    def branches(self, count: int) -> Iterator[list[Branch]]:
        """`count` branches that are not in use, for the time of a `with` block."""
        branches = [self.idle.pop() if self.idle else Branch() for _ in range(count)]
        yield branches
        self.idle += reversed(branches)


@cache
def streams() -> Streams:
    return Streams()


def new_event(block: bool = False) -> Any:
    return cupy.cuda.Event(block=block, disable_timing=True)


def together(*functions: Callable[[], None]) -> None:
    """Calls functions whose work may run at the same time; work that is queued later waits for all of it."""
    current = cupy.cuda.get_current_stream()
    first, *others = functions
    with streams().branches(len(others)) as branches:
        for function, branch in zip(others, branches, strict=True):
            branch.fork.record(current)
            branch.stream.wait_event(branch.fork)
            with branch.stream:
                function()
            branch.join.record(branch.stream)
        first()
        for branch in branches:
            current.wait_event(branch.join)


class CapturedGraph:
    """A CUDA graph. It refers to memory and code by address: `function` keeps all of that alive."""

    def __init__(self, captured: Any, function: Callable[[], object]):
        self.captured, self.function = captured, function
        self.ends = cycle([new_event(block=True) for _ in range(LAUNCHES_AHEAD)])

    def launch(self) -> None:
        """Queues the work once more; waits first if it is already queued LAUNCHES_AHEAD times."""
        end = next(self.ends)
        end.synchronize()
        self.captured.launch()
        end.record()


def capture(function: Callable[[], object]) -> CapturedGraph:
    """All work that a function queues, as one CUDA graph; nothing is run.

    The function must have run before: compiling kernels and allocating workspaces cannot be captured.
    """
    stream = streams().main
    stream.begin_capture()
    try:
        function()
    except BaseException:
        with suppress(RuntimeError):  # of the broken capture: the first error is the one to report
            stream.end_capture()
        raise
    captured = stream.end_capture()
    captured.upload()
    return CapturedGraph(captured, function)


# Time -----------------------------------------------------------------------------------------------------------------


class DeviceClock:
    """The clock of a GPU: events, which are recorded after the work queued before them. They cannot be captured."""

    def __init__(self) -> None:
        self.events: list[Any] = []  # reused
        self.used = 0
        self.laps: list[list[tuple[int, Any]]] = []

    def start(self) -> Callable[[int], None]:
        """Starts the clock, for one stream: `tick(i)` gives kernel i the time since the last tick."""
        lap = [(0, self._now())]
        self.laps.append(lap)
        return lambda kernel: lap.append((kernel, self._now()))

    def read(self) -> list[list[tuple[int, float]]]:
        """Waits for all work; for each start, the kernels in running order with their nanoseconds. Then starts over."""
        synchronize()
        elapsed = cupy.cuda.get_elapsed_time  # in ms
        laps = [
            [(kernel, elapsed(last, event) * 1e6) for (_, last), (kernel, event) in pairwise(lap)] for lap in self.laps
        ]
        self.laps.clear()
        self.used = 0
        return laps

    def _now(self) -> Any:
        if self.used == len(self.events):
            self.events.append(cupy.cuda.Event())
        event = self.events[self.used]
        self.used += 1
        event.record()
        return event


def sleep(seconds: float) -> None:
    """Keeps the GPU busy for some time, while more work is queued; that then runs without waiting for Python."""
    sleep_kernel()((1,), (1,), (np.int64(seconds * 1e9),))


@cache
def sleep_kernel() -> Any:
    return RawKernel(SLEEP, "nnc_sleep")


SLEEP = """
extern "C" __global__ void nnc_sleep(long long nanoseconds) {
  long long begun, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begun));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - begun < nanoseconds);
}
"""


# Functions that generated source calls --------------------------------------------------------------------------------


def ElementwiseKernel(inputs: str, outputs: str, body: str, name: str, preamble: str = "") -> Any:
    """A kernel that runs `body` for every index i; called with inputs, outputs and `size=`."""
    return cupy.ElementwiseKernel(inputs, outputs, body, name, preamble=preamble, no_return=True)


def RawKernel(text: str, name: str) -> Any:
    """A kernel in CUDA C++; called with grid, block and arguments."""
    return cupy.RawKernel(text, name)


def view(arena: Any, offset: int, dtype: type, shape: tuple[int, ...]) -> Any:
    """The array at a byte offset of the arena."""
    return cupy.ndarray(shape, dtype, arena.data + offset)


def copy(out: Any, source: Any) -> None:
    """out[...] = source, of the same dtype."""
    if out.shape == source.shape and out.flags.c_contiguous and source.flags.c_contiguous:
        out.data.copy_from_device_async(source.data, source.nbytes)
    else:
        copy_elements()(source, out)


@cache
def copy_elements() -> Any:
    return cupy.ElementwiseKernel("T source", "T copied", "copied = source", "copy_elements", no_return=True)


# Products -------------------------------------------------------------------------------------------------------------


class Products:
    """cuBLAS, with a handle for each stream; without the library, the kernels of nnc."""

    def __init__(self) -> None:
        self.blas = cublas.load(cupy.cuda.runtime.runtimeGetVersion() // 1000)
        if self.blas is None:
            warnings.warn("there is no cuBLAS: products are computed by kernels of nnc, which are slower", stacklevel=2)
        self.tf32 = False
        self.handles: dict[int, cublas.Handle] = {}
        self.workspaces: list[Any] = []

    def handle(self) -> cublas.Handle:
        """The handle of the current stream."""
        stream = cupy.cuda.get_current_stream().ptr
        if stream not in self.handles:
            assert self.blas is not None
            self.workspaces.append(zeros(cublas.WORKSPACE))
            pointer = self.workspaces[-1].data.ptr
            self.handles[stream] = cublas.Handle(self.blas, stream, pointer, self.tf32)
        return self.handles[stream]


@cache
def products() -> Products:
    return Products()


def use_tf32(wanted: bool) -> None:
    """Allows products of f32 to round their operands to 10 bits of mantissa, for speed; call before the first one."""
    products().tf32 = wanted


def matmul(a: Any, b: Any, out: Any) -> None:
    """out = a @ b in f32 or f64, with leading axes broadcast; operands may be transposed."""
    if not out.size:
        return
    if not a.shape[-1]:
        out.fill(0)
        return
    if products().blas is None:
        multiply_without_cublas(a, b, out)
        return
    handle, name = products().handle(), out.dtype.name
    addresses = [each.data.ptr for each in (a, b, out)]
    for call in cublas.calls(*map(cublas.Layout.of, (a, b, out))):
        handle.multiply(call, name, *addresses)


def multiply_without_cublas(a: Any, b: Any, out: Any) -> None:
    """The same with kernels of nnc, one matrix at a time."""
    tiled = out.dtype == np.float32 and out.flags.c_contiguous
    multiply = multiply_tiled if tiled else multiply_plainly
    a, b = (cupy.broadcast_to(each, (*out.shape[:-2], *each.shape[-2:])) for each in (a, b))
    for index in np.ndindex(*out.shape[:-2]):
        multiply(a[index], b[index], out[index])


def multiply_tiled(a: Any, b: Any, out: Any) -> None:
    (m, k), n = a.shape, b.shape[1]
    strides = [np.int64(stride // 4) for stride in (*a.strides, *b.strides)]
    grid, block = gemm.launch_shape(m, n)
    tiled_kernel()(grid, block, (a, b, out, *map(np.int32, (m, n, k)), *strides))


@cache
def tiled_kernel() -> Any:
    return RawKernel(gemm.SOURCE, gemm.NAME)


def multiply_plainly(a: Any, b: Any, out: Any) -> None:
    plain_kernel(out.dtype.name)(a, b, out.shape[1], a.shape[1], out, size=out.size)


@cache
def plain_kernel(dtype: str) -> Any:
    """One thread for each element: for rare cases, f64 and results that are parts of longer rows."""
    return ElementwiseKernel(
        f"raw {dtype} a, raw {dtype} b, int64 columns, int64 depth",
        f"raw {dtype} product",
        """
        const long long row = i / columns, column = i % columns;
        product[i] = 0;
        for (long long j = 0; j < depth; ++j) {
            product[i] += a[row * depth + j] * b[j * columns + column];
        }
        """,
        f"multiply_plainly_{dtype}",
    )
