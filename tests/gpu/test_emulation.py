"""The emulation itself: hand-written kernels give NumPy's results, in two orders, and their mistakes are found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.gpu.cupy_inside import machine_code
from tests.gpu.cupy_or_skip import cupy
from tests.gpu.emulation import cuda
from tests.gpu.emulation.compiling import CompileError
from tests.gpu.emulation.kernels import ElementwiseKernel, RawKernel
from tests.gpu.emulation.launches import KernelError, after_launch, in_order

ORDERS = (0, 1)

BIAS_RELU = "y0[i] = max(x0[i] + x1[i % N], 0.0f);"

ROW_SUMS = r"""
extern "C" __global__ void row_sums(const float* __restrict__ x, float* y, int N) {
    __shared__ float sums[4];
    float sum = 0.0f;
    for (int c = threadIdx.x; c < N; c += blockDim.x) {
        sum += x[blockIdx.x * N + c];
    }
    for (int lanes = 16; lanes; lanes /= 2) {
        sum += __shfl_xor_sync(0xffffffff, sum, lanes);
    }
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    if (threadIdx.x < 4) {
        sum = sums[threadIdx.x];
        sum += __shfl_down_sync(0xf, sum, 2);
        sum += __shfl_down_sync(0xf, sum, 1);
    }
    if (threadIdx.x == 0) {
        y[blockIdx.x] = sum;
    }
}
"""

# Each block sums some rows; the last one to finish adds the partial sums, in a fixed order.
COLUMN_SUMS = r"""
extern "C" __global__ void column_sums(const float* x, float* partial, unsigned* finished, float* y, int M, int N) {
    __shared__ bool last;
    for (int c = threadIdx.x; c < N; c += blockDim.x) {
        float sum = 0.0f;
        for (int r = blockIdx.x; r < M; r += gridDim.x) {
            sum += x[r * N + c];
        }
        partial[blockIdx.x * N + c] = sum;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicInc(finished, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    for (int c = threadIdx.x; c < N; c += blockDim.x) {
        float sum = 0.0f;
        for (int b = 0; b < gridDim.x; ++b) {
            sum += partial[b * N + c];
        }
        y[c] = sum;
    }
}
"""

GEMM = r"""
#define TILE 16
extern "C" __global__ void __launch_bounds__(256)
gemm(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int M, int N, int K) {
    __shared__ float left[TILE][TILE + 1];
    __shared__ float right[TILE][TILE];
    const int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (int k = 0; k < K; k += TILE) {
        const int across = k + threadIdx.x, down = k + threadIdx.y;
        left[threadIdx.y][threadIdx.x] = row < M && across < K ? a[row * K + across] : 0.0f;
        right[threadIdx.y][threadIdx.x] = down < K && column < N ? b[down * N + column] : 0.0f;
        __syncthreads();
        #pragma unroll
        for (int j = 0; j < TILE; ++j) {
            sum += left[threadIdx.y][j] * right[j][threadIdx.x];
        }
        __syncthreads();
    }
    if (row < M && column < N) {
        c[row * N + column] = sum;
    }
}
"""

FOUR_AT_ONCE = r"""
extern "C" __global__ void doubled(const float4* __restrict__ x, float4* y, int N) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N) {
        const float4 v = __ldg(x + i);
        y[i] = make_float4(2 * v.x, 2 * v.y, 2 * v.z, 2 * v.w);
    }
}
"""


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def filled(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


def bias_relu(body: str = BIAS_RELU) -> ElementwiseKernel:
    return ElementwiseKernel("raw float32 x0, raw float32 x1, int32 N", "raw float32 y0", body, "bias_relu")


def run_bias_relu(body: str = BIAS_RELU) -> tuple[np.ndarray, np.ndarray]:
    x, bias, y = normal(5, 33), normal(33), filled(5, 33)
    bias_relu(body)(x, bias, 33, y, size=x.size)
    return y, np.maximum(x + bias, 0)


def run_row_sums(text: str = ROW_SUMS) -> tuple[np.ndarray, np.ndarray]:
    x, y = normal(6, 300), filled(6)
    RawKernel(text, "row_sums")((6,), (128,), (x, y, np.int32(300)))
    return y, x.sum(1)


def run_column_sums(text: str = COLUMN_SUMS) -> tuple[np.ndarray, np.ndarray]:
    x, y, finished = normal(50, 70), filled(70), np.zeros(1, np.uint32)
    RawKernel(text, "column_sums")((7,), (64,), (x, filled(7, 70), finished, y, np.int32(50), np.int32(70)))
    assert finished[0] == 0, "the counter is ready for the next launch"
    return y, x.sum(0)


def run_gemm(text: str = GEMM) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = normal(37, 50), normal(50, 23), filled(37, 23)
    RawKernel(text, "gemm")((2, 3), (16, 16), (a, b, c, np.int32(37), np.int32(23), np.int32(50)))
    return c, a @ b


def run_four_at_once(text: str = FOUR_AT_ONCE) -> tuple[np.ndarray, np.ndarray]:
    x, y = normal(21, 4), filled(21, 4)
    RawKernel(text, "doubled")((1,), (32,), (x, y, np.int32(21)))
    return y, 2 * x


RUNS = [run_bias_relu, run_row_sums, run_column_sums, run_gemm, run_four_at_once]
Run = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("order", (0, 1, 2))
@pytest.mark.parametrize("run", RUNS)
def test_kernels_give_what_numpy_gives(run: Run, order: int):
    with in_order(order):
        found, expected = run()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_sums_is_fixed():
    results = []
    for order in range(4):
        with in_order(order):
            results.append(run_column_sums()[0])
    assert all(np.array_equal(results[0], other) for other in results)


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


# A run and a mistake in its text: each gives a wrong result in one of two orders, or an error.
MISTAKES = {
    "operands swapped": (run_gemm, "right[j][threadIdx.x];", "right[threadIdx.x][j];"),
    "wrong index": (run_bias_relu, "x1[i % N]", "x1[i / N]"),
    "another element": (run_bias_relu, "x0[i]", "x0[N]"),
    "read after the end": (run_bias_relu, "x0[i]", "x0[i + 1]"),
    "read before the start": (run_bias_relu, "x0[i]", "x0[i - 1]"),
    "written after the end": (run_bias_relu, "y0[i]", "y0[i + 1]"),
    "bound of reads left out": (run_gemm, "row < M && across < K ? a[row * K + across] : 0.0f", "a[row * K + across]"),
    "bound of writes left out": (run_gemm, "if (row < M && column < N)", ""),
    "bound of threads left out": (run_four_at_once, "if (i < N)", ""),
    "vector read after the end": (run_four_at_once, "x + i", "x + i + 1"),
    "vector read before the start": (run_four_at_once, "x + i", "x + i - 1"),
    "index in shared memory": (run_gemm, "left[threadIdx.y][j]", "left[threadIdx.y + 1][j]"),
    "no barrier before reads": (run_gemm, "__syncthreads();\n        #pragma", "#pragma"),
    "no barrier before writes": (run_gemm, "__syncthreads();\n    }\n    if", "}\n    if"),
    "no barrier after a reduction": (run_row_sums, "    __syncthreads();\n", ""),
    "a barrier for some": (run_row_sums, "sum = sums[threadIdx.x];", "__syncthreads(); sum = sums[threadIdx.x];"),
    "a lane that does not take part": (run_row_sums, "(0xf, sum, 1)", "(0xf, sum, 4)"),
    "shared memory not written": (run_row_sums, "sums[threadIdx.x / 32] = sum;", ""),
    "race between indices": (run_bias_relu, "x0[i] + x1[i % N]", "x0[i] + (i ? y0[i - 1] : 0)"),
    "race between blocks": (run_column_sums, "if (!last) return;", "if (blockIdx.x != gridDim.x - 1) return;"),
    "counter not reset": (run_column_sums, "atomicInc(finished, gridDim.x - 1)", "atomicInc(finished, ~0u)"),
    "integer divided by zero": (run_bias_relu, "i % N", "i % (N - 33)"),
}
TEXTS = {
    run_bias_relu: BIAS_RELU,
    run_row_sums: ROW_SUMS,
    run_column_sums: COLUMN_SUMS,
    run_gemm: GEMM,
    run_four_at_once: FOUR_AT_ONCE,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str):
    run, old, new = MISTAKES[mistake]
    text = replaced(TEXTS[run], old, new)
    assert not all(passes(run, text, order) for order in ORDERS)


def passes(run: Run, text: str, order: int) -> bool:
    try:
        with in_order(order):
            found, expected = run(text)
    except AssertionError:
        return False
    return np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_errors_say_where():
    with pytest.raises(KernelError, match="bias_relu: index 165 is outside of x0"):
        run_bias_relu(replaced(BIAS_RELU, "x0[i]", "x0[i + 1]"))
    with pytest.raises(KernelError, match=r"gemm: reads or writes \d+ bytes from [ac], in block"):
        run_gemm(replaced(GEMM, "a[row * K", "a[1000000 + row * K"))
    with pytest.raises(KernelError, match="row_sums: writes before or after shared memory"):
        run_row_sums(replaced(ROW_SUMS, "sums[threadIdx.x / 32] =", "*(sums + threadIdx.x + 4) ="))
    with pytest.raises(KernelError, match="row_sums: threads wait at barriers that others do not reach"):
        run_row_sums(replaced(ROW_SUMS, "__syncthreads();", "if (threadIdx.x) __syncthreads(); else __syncwarp();"))
    with pytest.raises(KernelError, match="row_sums: threads wait at different barriers"):
        run_row_sums(
            replaced(ROW_SUMS, "__syncthreads();", "if (threadIdx.x)\n__syncthreads();\nelse\n__syncthreads();")
        )


def test_a_text_that_is_not_cpp_does_not_affect_the_others():
    good = bias_relu()
    bad = bias_relu("y0[i] = x0[i] +;")
    x, y = normal(4), filled(4)
    with pytest.raises(CompileError, match="bias_relu"):
        bad(x, x, 4, y, size=4)
    good(x, x, 4, y, size=4)
    assert np.array_equal(y, np.maximum(x + x, 0))


def test_arguments_of_wrong_types_are_refused():
    """CuPy would pass them on unchecked."""
    x, y = normal(4), filled(4)
    for arguments in [(x.astype(np.float64), x, 4, y), (x, x, 4.0, y), (x, x, 2**40, y), (x[::2], x, 2, y)]:
        with pytest.raises(AssertionError):
            bias_relu()(*arguments, size=2)
    with pytest.raises(AssertionError, match="argument N is 4"):
        RawKernel(FOUR_AT_ONCE, "doubled")((1,), (32,), (x, y, 4.0))
    with pytest.raises(KernelError, match="__restrict__"):
        RawKernel(FOUR_AT_ONCE, "doubled")((1,), (32,), (x, x, np.int32(1)))


def test_what_runs_together_shares_nothing_that_is_written():
    x, y, z = normal(33), filled(33), filled(33)
    kernel, seen = bias_relu(), []
    with after_launch(lambda launch: seen.append(launch.name)):
        cuda.together(lambda: kernel(x, x, 33, y, size=33), lambda: cuda.copy(z, x))
        with in_order(1):
            cuda.together(lambda: kernel(x, x, 33, y, size=33), lambda: cuda.copy(z, x))
    assert seen == ["bias_relu", "copy", "copy", "bias_relu"]
    with pytest.raises(KernelError, match="may run at the same time"):
        cuda.together(lambda: kernel(x, x, 33, y, size=33), lambda: cuda.copy(z, y))


def test_a_graph_runs_when_it_is_launched():
    x, y = normal(4), filled(4)
    graph = cuda.capture(lambda: cuda.copy(y, x))
    assert np.isnan(y).all()
    graph.launch()
    assert np.array_equal(x, y)
    with pytest.raises(AssertionError, match="while a graph is captured"):
        cuda.capture(lambda: cuda.download(x))


def test_every_text_is_cuda():
    for text in (ROW_SUMS, COLUMN_SUMS, GEMM, FOUR_AT_ONCE):
        assert machine_code(text)
    kernel, x = bias_relu(), normal(1, 2, 2)
    kernel(x, x, 4, filled(4), size=4)
    (source,) = kernel.sources()
    assert "CArray<float, 3, 1, 1> x0" in source and "CArray<float, 1, 1, 1> y0" in source
    assert machine_code(source)


@pytest.mark.parametrize(
    ("old", "new", "log"),
    [
        ("float sum = 0.0f", "float sum = -INFINITY", 'identifier "INFINITY" is undefined'),
        ("right[j][threadIdx.x];", "right[j][threadIdx.x]", 'expected a ";"'),
        ("right[TILE][TILE];", "right[TILE][TILE * TILE * 4];", "too much shared"),
    ],
)
def test_nvrtc_refuses_what_is_not_cuda(old: str, new: str, log: str):
    with pytest.raises(cupy.cuda.compiler.CompileException, match=log):
        machine_code(replaced(GEMM, old, new))
