/* The micro-kernel of products and convolutions: one tile of results, computed in registers.

   Each row of the tile takes one number of A per step of the depth, repeated in all lanes, times one to TILE_VECTORS
   vectors of B. TILE_ROWS x TILE_VECTORS accumulators, the vectors of B and one of A fill the registers. See Goto and
   van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.

   In f32 and, with names that end in _f64, in f64: tiles_of.h is the text for both. */
#pragma once
#include "vectors.h"

/* Most rows and vectors of a tile, from the number of registers. */
#if defined(__AVX512F__) && !defined(NNC_SCALAR)
#define TILE_ROWS 14 /* 32 registers: 28 sums, 2 of B, 1 of A */
#define ROWS_OF_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#elif defined(__AVX__) && !defined(NNC_SCALAR)
#define TILE_ROWS 6 /* 16 registers: 12 sums, 2 of B, 1 of A */
#define ROWS_OF_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#elif defined(__aarch64__) && !defined(NNC_SCALAR)
#define TILE_ROWS 12 /* 32 registers: 24 sums, 2 of B, up to 6 of A */
#define ROWS_OF_TILES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
#define TILE_ROWS 4 /* 16 registers without FMA: 8 sums, 2 of B, and the products before they are added */
#define ROWS_OF_TILES(X) X(1) X(2) X(3) X(4)
#endif
#define TILE_VECTORS 2
#define TILE_COLUMNS (TILE_VECTORS * LANES)

/* Columns of most tiles, and of the last one of each row of tiles, of a matrix with n columns. */
#define USUAL_COLUMNS(n) ((n) < TILE_COLUMNS ? (n) : TILE_COLUMNS)
#define LAST_COLUMNS(n) ((n) % TILE_COLUMNS ? (n) % TILE_COLUMNS : TILE_COLUMNS)

#define LANES_f64 (LANES > 1 ? LANES / 2 : 1)

#define REAL float
#define OF(name) name
#define REAL_LANES LANES
#include "tiles_of.h"
#undef REAL
#undef OF
#undef REAL_LANES

typedef double Vector_f64 __attribute__((vector_size(8 * LANES_f64)));
typedef double VectorInMemory_f64 __attribute__((vector_size(8 * LANES_f64), aligned(8), may_alias));

INLINE Vector_f64 load_f64(const double *place) { return *(const VectorInMemory_f64 *)place; }
INLINE void store_f64(double *place, Vector_f64 value) { *(VectorInMemory_f64 *)place = value; }
INLINE Vector_f64 all_f64(double value) { return value - (Vector_f64){0}; }

#define REAL double
#define OF(name) name##_f64
#define REAL_LANES LANES_f64
#include "tiles_of.h"
#undef REAL
#undef OF
#undef REAL_LANES
