/* Vectors of numbers, as wide as the registers of the processor that the text is compiled for. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(NNC_SCALAR)
#define LANES 1 /* to test: no vectors at all */
#elif defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4 /* SSE2, NEON */
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define UNUSED __attribute__((unused))
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(GCC unroll n)

/* A vector of LANES floats in registers, and the same anywhere in memory. */
typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float VectorInMemory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Vector load(const float *place) { return *(const VectorInMemory *)place; }
INLINE void store(float *place, Vector value) { *(VectorInMemory *)place = value; }
/* All lanes the same. Subtracting zero is folded away; adding it is not, since -0 + 0 = 0. */
INLINE Vector all(float value) { return value - (Vector){0}; }
