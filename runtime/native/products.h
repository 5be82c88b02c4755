/* Matrix products C[b] = A[b] B[b] of any sizes and strides, with an epilogue for each tile of C.

   Each thread computes a box of batches, rows and columns (split). Within it: blocks of rows whose part of A stays in
   the second cache, panels of one tile's columns of B that are packed just before use and stay in the first, tiles of
   registers (tiles.h). A deep product adds up blocks of the depth; its sums wait in the workspace. The order of all
   sums depends on the sizes and the number of threads only. */
#pragma once
#include "product.h"
#include "tiles.h"

#define DEPTH_BLOCK 384         /* of a panel: 48 KB with AVX-512, 12 KB with SSE */
#define SHORT_DEPTH 64          /* of products that are bounded by writing their results */
#define ROWS_BYTES (384L << 10) /* of a block of rows of A */
#define SUMS_BYTES (512L << 10) /* of the sums of a block of C */

#define THIN_STRIP 1024         /* sums of a thin product (thin_of.h) */
#define THIN_DEPTH 2048         /* numbers of its vectors at a time */

/* Bytes of each thread's workspace that a product of any size needs: packed rows, sums, a panel, two tiles. */
#define PRODUCT_WORKSPACE (ROWS_BYTES + SUMS_BYTES + (DEPTH_BLOCK + 2 * TILE_ROWS) * TILE_VECTORS * LANES * 8 + 1024)

/* Lanes of two vectors, by their numbers. GCC before 12 has only its own name for it; NNC_GCC_9 is to test that. */
#if (defined(__clang__) || __GNUC__ >= 12) && !defined(NNC_GCC_9)
#define SHUFFLE(Lanes, first, second, ...) __builtin_shufflevector(first, second, __VA_ARGS__)
#else
#define SHUFFLE(Lanes, first, second, ...) __builtin_shuffle(first, second, (Lanes){__VA_ARGS__})
#endif
#define LIST(...) __VA_ARGS__

/* The part of a product that one thread computes. */
typedef struct {
    long batch_from, batch_to, row_from, row_to, column_from, column_to;
} Box;

INLINE long divided_up(long n, long by) { return (n + by - 1) / by; }

/* Batches, rows and columns are divided so that the slowest thread has least to do, in quarters of a cycle for one step
   of the depth: half a cycle for a vector of results, three to pack a vector of B, a quarter to read a number of A. */
static UNUSED Box split(const Step *s, long batch, long rows, long columns, long lanes) {
    long best = -1, by_batch = 1, by_row = 1;
    for (long x = 1; x <= s->parts; x++)
        for (long y = 1; x * y <= s->parts; y++) {
            if (s->parts % (x * y)) continue;
            const long z = s->parts / (x * y), high = divided_up(rows, y);
            const long vectors = divided_up(divided_up(columns, lanes), z);
            const long cost = divided_up(batch, x) * (2 * high * vectors + 12 * vectors + high);
            if (best < 0 || cost < best) best = cost, by_batch = x, by_row = y;
        }
    const int by_column = (int)(s->parts / (by_batch * by_row)), rest = s->part / by_column;
    Box box;
    share(columns, lanes, s->part % by_column, by_column, &box.column_from, &box.column_to);
    share(rows, 1, (int)(rest % by_row), (int)by_row, &box.row_from, &box.row_to);
    share(batch, 1, (int)(rest / by_row), (int)by_batch, &box.batch_from, &box.batch_to);
    return box;
}

#define REAL float
#define REAL_INTEGER int32_t
#define OF(name) name
#define REAL_LANES LANES
#include "packing_of.h"
#include "products_of.h"
#undef REAL
#undef REAL_INTEGER
#undef OF
#undef REAL_LANES

#define REAL double
#define REAL_INTEGER int64_t
#define OF(name) name##_f64
#define REAL_LANES LANES_f64
#include "packing_of.h"
#include "products_of.h"
#undef REAL
#undef REAL_INTEGER
#undef OF
#undef REAL_LANES
