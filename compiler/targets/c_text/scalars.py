"""Elementwise ops, types and numbers as CUDA C++, and the device functions that they call.

The texts compile with NVRTC, which has no standard headers, and with a host compiler after a few definitions. Maxima
and minima are NaN if an operand is NaN, like those of NumPy and unlike fmaxf.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from compiler.ir.graph import Node, Scalar

C_TYPES = {"f32": "float", "f64": "double", "i32": "int", "i64": "long long", "u8": "unsigned char", "bool": "bool"}
CUPY_TYPES = {"f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8", "bool": "bool"}
INFINITIES = {"f32": "__int_as_float(0x7f800000)", "f64": "__longlong_as_double(0x7ff0000000000000LL)"}
NANS = {"f32": "__int_as_float(0x7fffffff)", "f64": "__longlong_as_double(0x7fffffffffffffffLL)"}
ExpressionWriter = Callable[[Node, Sequence[str]], str]  # of a node, with its operands as C


def constant(value: Scalar, dtype: str) -> str:
    """A number as a C constant of a type."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype not in INFINITIES:
        return f"{value}LL" if dtype == "i64" else str(value)
    if math.isnan(value):
        return NANS[dtype]
    if math.isinf(value):
        return INFINITIES[dtype] if value > 0 else f"(-{INFINITIES[dtype]})"
    text = repr(float(value)) + ("f" if dtype == "f32" else "")
    return f"({text})" if text.startswith("-") else text


def least(dtype: str) -> str:
    """A lower bound of all numbers of a type."""
    integers = {"i32": "(-2147483647 - 1)", "i64": "(-9223372036854775807LL - 1)", "u8": "0"}
    return integers.get(dtype) or constant(-math.inf, dtype)


def infix(symbol: str) -> ExpressionWriter:
    return lambda node, values: f"{values[0]} {symbol} {values[1]}"


def call(name: str) -> ExpressionWriter:
    return lambda node, values: f"{name}({', '.join(values)})"


def function(name: str) -> ExpressionWriter:
    """A function of math.h; the name of its float version ends with f."""
    return lambda node, values: f"{name}{'f' if node.result.type.dtype == 'f32' else ''}({', '.join(values)})"


def quotient(name: str) -> ExpressionWriter:
    """A device function with versions for floats and for whole numbers; of a type, since a number may be an int."""
    return lambda node, values: (
        f"{name}_{'floats' if node.result.type.is_float else 'integers'}"
        f"<{C_TYPES[node.result.type.dtype]}>({', '.join(values)})"
    )


def clip(node: Node, values: Sequence[str]) -> str:
    low, high = (constant(node.attributes[name], node.result.type.dtype) for name in ("low", "high"))
    return f"min_of(max_of({values[0]}, {low}), {high})"


def cast(node: Node, values: Sequence[str]) -> str:
    dtype = node.result.type.dtype
    return f"{values[0]} != 0" if dtype == "bool" else f"({C_TYPES[dtype]}){values[0]}"


EXPRESSIONS: dict[str, ExpressionWriter] = {
    "add": infix("+"),
    "sub": infix("-"),
    "mul": infix("*"),
    "div": infix("/"),
    "floor_div": quotient("floor_div"),
    "mod": quotient("mod"),
    "pow": function("pow"),
    "max": call("max_of"),
    "min": call("min_of"),
    "clip": clip,
    "neg": lambda node, values: f"-{values[0]}",
    "abs": call("abs_of"),
    "sign": call("sign_of"),
    "floor": function("floor"),
    "exp": function("exp"),
    "expm1": function("expm1"),
    "log": function("log"),
    "log1p": function("log1p"),
    "sqrt": function("sqrt"),
    "tanh": function("tanh"),
    "sigmoid": call("sigmoid_of"),
    "erf": function("erf"),
    "normal_cdf": function("normcdf"),
    "sin": function("sin"),
    "cos": function("cos"),
    "lt": infix("<"),
    "le": infix("<="),
    "eq": infix("=="),
    "and": infix("&&"),
    "or": infix("||"),
    "not": lambda node, values: f"!{values[0]}",
    "select": lambda node, values: f"{values[0]} ? {values[1]} : {values[2]}",
    "cast": cast,
    "copy": lambda node, values: values[0],
}

DEVICE_FUNCTIONS = {  # by name; a kernel contains those that it calls
    "max_of": "template <typename T> __device__ inline T max_of(T a, T b) { return a >= b || a != a ? a : b; }",
    "min_of": "template <typename T> __device__ inline T min_of(T a, T b) { return a <= b || a != a ? a : b; }",
    "abs_of": "template <typename T> __device__ inline T abs_of(T a) { return a < 0 ? -a : a == 0 ? T(0) : a; }",
    "sign_of": "template <typename T> __device__ inline T sign_of(T a) { return a != a ? a : T((a > 0) - (a < 0)); }",
    "sigmoid_of": """\
template <typename T>
__device__ inline T sigmoid_of(T a) {
    const T small = exp(a < 0 ? a : -a);
    return (a < 0 ? small : T(1)) / (T(1) + small);
}""",
    "mod_floats": """\
// As in Python: the remainder has the sign of b.
template <typename T>
__device__ inline T mod_floats(T a, T b) {
    const T rest = fmod(a, b);
    return rest == 0 ? copysign(rest, b) : (rest < 0) != (b < 0) ? rest + b : rest;
}""",
    "floor_div_floats": """\
// The whole number next to (a - a mod b) / b, which a / b rounded down may miss by one.
template <typename T>
__device__ inline T floor_div_floats(T a, T b) {
    if (b == 0) return a / b;
    const T rest = fmod(a, b), exact = (a - rest) / b - T(rest != 0 && (rest < 0) != (b < 0));
    const T down = floor(exact);
    return exact == 0 ? copysign(T(0), a / b) : exact - down > T(0.5) ? down + T(1) : down;
}""",
    "mod_integers": """\
// 0 for b = 0; the check of -1 keeps the least number from overflowing.
template <typename T>
__device__ inline T mod_integers(T a, T b) {
    if (b == 0 || (T(-1) < T(0) && b == T(-1))) return 0;
    const T rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}""",
    "floor_div_integers": """\
// 0 for b = 0; the least number divided by -1 wraps around to itself.
template <typename T>
__device__ inline T floor_div_integers(T a, T b) {
    if (b == 0) return 0;
    if (T(-1) < T(0) && b == T(-1)) return T(0ULL - (unsigned long long)a);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}""",
    "philox_uniform": """\
// The n-th number of a stream: Philox4x64-10 (Salmon et al., 2011) with key (seed, stream) and counter
// (block, 0, step, 0), whose blocks count from 1; each has four words, a word two numbers, the low half first.
__device__ inline float philox_uniform(long long seed, int step, unsigned long long stream, long long n) {
    unsigned long long key0 = seed, key1 = stream;
    unsigned long long x0 = n / 8 + 1, x1 = 0, x2 = (long long)step, x3 = 0;
    for (int round = 0; round < 10; ++round) {
        const unsigned long long high0 = __umul64hi(0xD2E7470EE14C6C93ULL, x0), low0 = 0xD2E7470EE14C6C93ULL * x0;
        const unsigned long long high2 = __umul64hi(0xCA5A826395121157ULL, x2), low2 = 0xCA5A826395121157ULL * x2;
        x0 = high2 ^ x1 ^ key0, x1 = low2, x2 = high0 ^ x3 ^ key1, x3 = low0;
        key0 += 0x9E3779B97F4A7C15ULL, key1 += 0xBB67AE8584CAA73BULL;
    }
    const int place = (int)(n % 8);
    const unsigned long long word = place < 2 ? x0 : place < 4 ? x1 : place < 6 ? x2 : x3;
    return (float)((unsigned int)(word >> (place % 2 * 32)) >> 8) * (1.0f / 16777216.0f);
}""",
    "add_compensated": """\
// sum += value, where `lost` is what rounding has added to the sum so far (Kahan, 1965); infinities stay infinite.
template <typename T>
__device__ inline void add_compensated(T& sum, T& lost, T value) {
    const T corrected = value - lost, next = sum + corrected;
    lost = next - next == T(0) ? (next - sum) - corrected : T(0);
    sum = next;
}""",
    "block_sum": """\
// The sum over the `reducers` threads, `stride` apart, that share a position; all of them get it. Always in one order.
template <typename T>
__device__ inline T block_sum(T value, T* shared, int reducer, int reducers, int stride) {
    __syncthreads();
    shared[threadIdx.x] = value;
    for (int half = reducers / 2; half > 0; half /= 2) {
        __syncthreads();
        if (reducer < half) shared[threadIdx.x] += shared[threadIdx.x + half * stride];
    }
    __syncthreads();
    return shared[threadIdx.x - reducer * stride];
}""",
    "block_max": """\
// The maximum over the `reducers` threads, `stride` apart, that share a position.
template <typename T>
__device__ inline T block_max(T value, T* shared, int reducer, int reducers, int stride) {
    __syncthreads();
    shared[threadIdx.x] = value;
    for (int half = reducers / 2; half > 0; half /= 2) {
        __syncthreads();
        if (reducer < half) shared[threadIdx.x] = max_of(shared[threadIdx.x], shared[threadIdx.x + half * stride]);
    }
    __syncthreads();
    return shared[threadIdx.x - reducer * stride];
}""",
    "block_argmax": """\
// The place of the maximum over the `reducers` threads, `stride` apart: the first one, and a NaN before all numbers.
template <typename T>
__device__ inline int block_argmax(
    T value, int place, T* shared, int* places, int reducer, int reducers, int stride) {
    __syncthreads();
    shared[threadIdx.x] = value;
    places[threadIdx.x] = place;
    for (int half = reducers / 2; half > 0; half /= 2) {
        __syncthreads();
        if (reducer < half) {
            const int here = threadIdx.x, other = threadIdx.x + half * stride;
            const T a = shared[here], b = shared[other];
            const bool equal = a == b || a != a && b != b;
            if (equal ? places[other] < places[here] : b > a || b != b) {
                shared[here] = b;
                places[here] = places[other];
            }
        }
    }
    __syncthreads();
    return places[threadIdx.x - reducer * stride];
}""",
    "last_block": """\
// Whether all other blocks have written what this one is to read; the counter is left at zero for the next launch.
__device__ bool last_block(unsigned int* done, unsigned int blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(done, 1u) == blocks - 1;
        if (last) *done = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}""",
}


def functions_in(text: str) -> list[str]:
    """The device functions that a text calls, callees first."""
    words = set(re.findall(r"\w+", text))
    for name in reversed(DEVICE_FUNCTIONS):
        words |= set(re.findall(r"\w+", DEVICE_FUNCTIONS[name])) if name in words else set()
    return [name for name in DEVICE_FUNCTIONS if name in words]
