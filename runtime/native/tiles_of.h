/* The micro-kernel for one type of numbers. tiles.h includes this text once for each type: REAL is float or double,
   REAL_LANES how many are in a vector, OF(name) the name of what belongs to the type. */

/* A tile of products: sums over g < segments and p < depth of
   a[g * a_segment + i * a_row + p * a_step] * b[g * b_segment + p * b_row + j]. */
typedef struct {
    long segments, depth;
    const REAL *a;
    long a_segment, a_row, a_step;
    const REAL *b;
    long b_segment, b_row;
} OF(TileWork);

/* The body of each kernel: rows and vectors are constants where it is inlined, so that all sums stay in registers.
   A pointer to every third row: addresses base + 0, 1 or 2 rows need few registers. */
INLINE void OF(multiply_rows)(const int rows, const int vectors, const OF(TileWork) *work, REAL *tile, bool add) {
    OF(Vector) sum[TILE_ROWS][TILE_VECTORS];
    const long row = work->a_row, step = work->a_step, b_row = work->b_row, depth = work->depth;
    UNROLL(16) for (int i = 0; i < rows; i++)
        UNROLL(4) for (int v = 0; v < vectors; v++) sum[i][v] = (OF(Vector)){0};
    for (long g = 0; g < work->segments; g++) {
        const REAL *a = work->a + g * work->a_segment, *b = work->b + g * work->b_segment;
        const REAL *third[(TILE_ROWS + 2) / 3];
        UNROLL(8) for (int i = 0; i < rows; i += 3) third[i / 3] = a + i * row;
        for (long p = 0; p < depth; p++, b += b_row) {
            OF(Vector) right[TILE_VECTORS];
            UNROLL(4) for (int v = 0; v < vectors; v++) right[v] = OF(load)(b + v * REAL_LANES);
            UNROLL(16) for (int i = 0; i < rows; i++) {
                const OF(Vector) left = OF(all)(third[i / 3][(i % 3) * row]);
                UNROLL(4) for (int v = 0; v < vectors; v++) sum[i][v] += left * right[v];
            }
            UNROLL(8) for (int i = 0; i < rows; i += 3) third[i / 3] += step;
        }
    }
    UNROLL(16) for (int i = 0; i < rows; i++)
        UNROLL(4) for (int v = 0; v < vectors; v++) {
            REAL *place = tile + (i * TILE_VECTORS + v) * REAL_LANES;
            OF(store)(place, add ? OF(load)(place) + sum[i][v] : sum[i][v]);
        }
}

#define KERNEL(rows) \
    static UNUSED __attribute__((noinline)) void OF(tile_##rows##x1)(const OF(TileWork) *work, REAL *tile, bool add) { \
        OF(multiply_rows)(rows, 1, work, tile, add); \
    } \
    static UNUSED __attribute__((noinline)) void OF(tile_##rows##x2)(const OF(TileWork) *work, REAL *tile, bool add) { \
        OF(multiply_rows)(rows, 2, work, tile, add); \
    }
ROWS_OF_TILES(KERNEL)
#undef KERNEL

/* tile[i * TILE_VECTORS * REAL_LANES + j] (+)= the sums of `work`, for i < rows and j < vectors * REAL_LANES. B must be
   readable for all those columns, A only for the rows. */
static UNUSED void OF(multiply_tile)(int rows, int vectors, const OF(TileWork) *work, REAL *tile, bool add) {
#define KERNELS(rows) {OF(tile_##rows##x1), OF(tile_##rows##x2)},
    static void (*const kernels[][TILE_VECTORS])(const OF(TileWork) *, REAL *, bool) = {ROWS_OF_TILES(KERNELS)};
#undef KERNELS
    kernels[rows - 1][vectors - 1](work, tile, add);
}
