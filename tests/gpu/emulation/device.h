// CUDA C++ for g++: qualifiers, vector types, and the device functions that generated kernels use.
//
// Not here on purpose: atomics on floating-point numbers, whose order is not fixed, so that the sum is not either.
#pragma once
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__  // g++ would rely on it; launches check that restricted arguments do not overlap
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static IN_SHARED_MEMORY
#define IN_SHARED_MEMORY __attribute__((section(SHARED_SECTION), no_reorder))  // a section for each kernel

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

// The larger and the smaller of two; for floats like fmaxf and fminf, which prefer numbers to NaN.
#define OF_INTEGERS(T)                                         \
  static inline T max(T a, T b) { return a > b ? a : b; }      \
  static inline T min(T a, T b) { return a < b ? a : b; }
OF_INTEGERS(int)
OF_INTEGERS(unsigned)
OF_INTEGERS(long)
OF_INTEGERS(unsigned long)
OF_INTEGERS(long long)
OF_INTEGERS(unsigned long long)
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float normcdff(float x) { return erfc(x * -M_SQRT1_2) / 2; }
static inline double normcdf(double x) { return erfcl(x * -sqrtl(0.5L)) / 2; }
#define __expf expf  // the C library has hidden functions of these names
#define __logf logf
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }

template <class To, class From>
static inline To same_bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "");
  To result;
  memcpy(&result, &x, sizeof x);
  return result;
}
static inline float __int_as_float(int x) { return same_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
static inline int __float_as_int(float x) { return same_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return same_bits<double>(x); }

static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)(((unsigned __int128)x * y) >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

template <class T>
static inline T __ldg(const T* pointer) { return *pointer; }

// Threads take turns, so plain code is atomic and every write is visible at once.
static inline void __threadfence() {}
#define OF_ATOMICS(T)                                                                                      \
  static inline T atomicAdd(T* at, T value) { T old = *at; *at = old + value; return old; }                \
  static inline T atomicExch(T* at, T value) { T old = *at; *at = value; return old; }                     \
  static inline T atomicMax(T* at, T value) { T old = *at; *at = max(old, value); return old; }            \
  static inline T atomicMin(T* at, T value) { T old = *at; *at = min(old, value); return old; }            \
  static inline T atomicCAS(T* at, T compare, T value) { T old = *at; if (old == compare) *at = value; return old; }
OF_ATOMICS(int)
OF_ATOMICS(unsigned)
OF_ATOMICS(unsigned long long)
static inline unsigned atomicInc(unsigned* at, unsigned last) {
  unsigned old = *at;
  *at = old >= last ? 0 : old + 1;
  return old;
}
