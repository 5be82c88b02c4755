/* Products of a matrix with one, two or three vectors, for one type of numbers (see tiles_of.h). The matrix is read
   once, where it is and in the order of its memory: its speed is the limit. X [few, depth] are the vectors, Y
   [depth, many] is the matrix; if B is the thin operand, both are transposed. */

typedef struct {
    long few, many, depth;
    const REAL *x;
    long x_batch, x_row, x_step;
    const REAL *y;
    long y_batch, y_step, y_column;
    bool swapped; /* the result is many x few */
} OF(Thin);

/* sums[i * THIN_STRIP + j] += x[i * THIN_DEPTH + q] * y[q * step + j]: eight rows of Y at once. */
INLINE void OF(add_rows)(const int few, const REAL *x, const REAL *y, long step, REAL *sums, long n) {
    long j = 0;
    for (; j + REAL_LANES <= n; j += REAL_LANES)
        UNROLL(4) for (int i = 0; i < few; i++) {
            OF(Vector) sum = OF(load)(sums + i * THIN_STRIP + j);
            UNROLL(8) for (int q = 0; q < 8; q++) sum += OF(all)(x[i * THIN_DEPTH + q]) * OF(load)(y + q * step + j);
            OF(store)(sums + i * THIN_STRIP + j, sum);
        }
    UNROLL(1) for (; j < n; j++)
        UNROLL(1) for (int i = 0; i < few; i++)
            UNROLL(1) for (int q = 0; q < 8; q++) sums[i * THIN_STRIP + j] += x[i * THIN_DEPTH + q] * y[q * step + j];
}

/* sums[j] += x * y[j]: what is left of the depth. */
static UNUSED __attribute__((noinline)) void OF(add_row)(REAL x, const REAL *y, REAL *sums, long n) {
    for (long j = 0; j < n; j++) sums[j] += x * y[j];
}

/* All steps of a block of the depth, where rows of Y are in order. */
INLINE void OF(add_all_rows)(
    const int few, const REAL *x, const REAL *y, long step, long depth, REAL *sums, long n) {
    long p = 0;
    for (; p + 8 <= depth; p += 8) OF(add_rows)(few, x + p, y + p * step, step, sums, n);
    for (; p < depth; p++)
        for (int i = 0; i < few; i++) OF(add_row)(x[i * THIN_DEPTH + p], y + p * step, sums + i * THIN_STRIP, n);
}

static UNUSED __attribute__((noinline)) REAL OF(sum_of_lanes)(OF(Vector) sum) {
    REAL lanes[REAL_LANES];
    memcpy(lanes, &sum, sizeof lanes);
    for (int half = REAL_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* sums[i * THIN_STRIP + j] += sum over p of x[i * THIN_DEPTH + p] * y[j * column + p], for four columns of Y. */
INLINE void OF(add_dots)(const int few, const REAL *x, const REAL *y, long column, long depth, REAL *sums) {
    OF(Vector) sum[3][4] = {0};
    long p = 0;
    for (; p + REAL_LANES <= depth; p += REAL_LANES)
        UNROLL(4) for (int j = 0; j < 4; j++) {
            const OF(Vector) right = OF(load)(y + j * column + p);
            UNROLL(4) for (int i = 0; i < few; i++) sum[i][j] += OF(load)(x + i * THIN_DEPTH + p) * right;
        }
    UNROLL(4) for (int i = 0; i < few; i++)
        UNROLL(4) for (int j = 0; j < 4; j++) sums[i * THIN_STRIP + j] += OF(sum_of_lanes)(sum[i][j]);
    UNROLL(1) for (; p < depth; p++)
        UNROLL(1) for (int i = 0; i < few; i++)
            UNROLL(1) for (int j = 0; j < 4; j++)
                sums[i * THIN_STRIP + j] += x[i * THIN_DEPTH + p] * y[j * column + p];
}

/* The sum over p of x[p] * y[p]: four vectors at once, so that sums do not wait for each other. */
static UNUSED __attribute__((noinline)) REAL OF(dot)(const REAL *x, const REAL *y, long depth) {
    OF(Vector) sum[4] = {0};
    REAL rest = 0;
    long p = 0;
    for (; p + 4 * REAL_LANES <= depth; p += 4 * REAL_LANES)
        UNROLL(4) for (int v = 0; v < 4; v++)
            sum[v] += OF(load)(x + p + v * REAL_LANES) * OF(load)(y + p + v * REAL_LANES);
    UNROLL(1) for (; p < depth; p++) rest += x[p] * y[p];
    return OF(sum_of_lanes)((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

/* All columns of a block of the depth, where columns of Y are in order. */
INLINE void OF(add_all_dots)(
    const int few, const REAL *x, const REAL *y, long column, long depth, REAL *sums, long n) {
    long j = 0;
    for (; j + 4 <= n; j += 4) OF(add_dots)(few, x, y + j * column, column, depth, sums + j);
    for (; j < n; j++)
        for (int i = 0; i < few; i++) sums[i * THIN_STRIP + j] += OF(dot)(x + i * THIN_DEPTH, y + j * column, depth);
}

#define THIN_KERNEL(few) \
    static UNUSED __attribute__((noinline)) void OF(add_thin_##few)( \
        const OF(Thin) *thin, const REAL *x, const REAL *y, long depth, REAL *sums, long n) { \
        if (thin->y_step == 1) OF(add_all_dots)(few, x, y, thin->y_column, depth, sums, n); \
        else OF(add_all_rows)(few, x, y, thin->y_step, depth, sums, n); \
    }
THIN_KERNEL(1)
THIN_KERNEL(2)
THIN_KERNEL(3)
#undef THIN_KERNEL

/* Whether Y can be read in the order of its memory, and enough of it at a time; if it is so both ways, by columns. */
static UNUSED bool OF(set_up_thin)(OF(Thin) *thin) {
    if (thin->few < 1 || thin->few > 3) return false;
    if (thin->y_step == 1 && thin->depth >= 4 * REAL_LANES && (thin->y_column != 1 || thin->many == 1)) return true;
    return thin->y_column == 1 && thin->y_step != 1 && thin->many >= 4 * REAL_LANES;
}

/* The product as a thin one: of few rows, or transposed of few columns. */
static UNUSED bool OF(is_thin)(const OF(Product) *p, OF(Thin) *thin) {
    *thin = (OF(Thin)){
        p->rows, p->columns, p->depth, p->a, p->a_batch, p->a_row, p->a_step, p->b, p->b_batch, p->b_step, p->b_column,
        false};
    if (OF(set_up_thin)(thin)) return true;
    *thin = (OF(Thin)){
        p->columns, p->rows, p->depth, p->b, p->b_batch, p->b_column, p->b_step, p->a, p->a_batch, p->a_step, p->a_row,
        true};
    return OF(set_up_thin)(thin);
}

/* The sums of columns `from` … `from + n` - 1 of Y. */
static UNUSED void OF(add_thin)(const OF(Thin) *thin, long batch, long from, long n, REAL *x, REAL *sums) {
    static void (*const kernels[])(const OF(Thin) *, const REAL *, const REAL *, long, REAL *, long) = {
        OF(add_thin_1), OF(add_thin_2), OF(add_thin_3)};
    for (long i = 0; i < thin->few; i++) memset(sums + i * THIN_STRIP, 0, n * sizeof(REAL));
    for (long p = 0; p < thin->depth; p += THIN_DEPTH) {
        const long depth = thin->depth - p < THIN_DEPTH ? thin->depth - p : THIN_DEPTH;
        const REAL *vectors = thin->x + batch * thin->x_batch + p * thin->x_step;
        for (long i = 0; i < thin->few; i++)
            for (long q = 0; q < depth; q++) x[i * THIN_DEPTH + q] = vectors[i * thin->x_row + q * thin->x_step];
        const REAL *matrix = thin->y + batch * thin->y_batch + from * thin->y_column + p * thin->y_step;
        kernels[thin->few - 1](thin, x, matrix, depth, sums, n);
    }
}

static UNUSED void OF(multiply_thin)(const Step *s, const OF(Product) *p, const OF(Thin) *thin, OF(TileDone) done) {
    const Box box = split(s, p->batch, 1, thin->many, REAL_LANES);
    REAL *x = (REAL *)workspace_of(s, s->part), *sums = x + 3 * THIN_DEPTH, *tile = sums + 3 * THIN_STRIP;
    if (box.row_from == box.row_to) return;
    for (long batch = box.batch_from; batch < box.batch_to; batch++)
        for (long j = box.column_from; j < box.column_to; j += THIN_STRIP) {
            const long n = box.column_to - j < THIN_STRIP ? box.column_to - j : THIN_STRIP, few = thin->few;
            OF(add_thin)(thin, batch, j, n, x, sums);
            if (!thin->swapped) {
                for (long c = 0; c < n; c += WIDEST_TILE)
                    done(s, sums + c, THIN_STRIP, batch, 0, few, j + c, n - c < WIDEST_TILE ? n - c : WIDEST_TILE);
                continue;
            }
            for (long c = 0; c < n; c++)
                for (long i = 0; i < few; i++) tile[c * few + i] = sums[i * THIN_STRIP + c];
            done(s, tile, few, batch, j, n, 0, few);
        }
}
