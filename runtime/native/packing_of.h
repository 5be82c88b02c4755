/* Packing the operands of products, for one type of numbers (see tiles_of.h; REAL_INTEGER has the same size): blocks of
   matrices as rows of whole vectors, in the order in which the micro-kernel reads them. */

#if REAL_LANES > 1
typedef REAL_INTEGER OF(Lanes) __attribute__((vector_size(sizeof(OF(Vector))))); /* which lanes */

/* Each stage exchanges halves, quarters … of pairs of rows that are `distance` apart. */
#if REAL_LANES == 16
#define STAGES \
    STAGE(8, (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), \
             (8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)) \
    STAGE(4, (0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27), \
             (4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)) \
    STAGE(2, (0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29), \
             (2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)) \
    STAGE(1, (0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30), \
             (1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif REAL_LANES == 8
#define STAGES \
    STAGE(4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)) \
    STAGE(2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)) \
    STAGE(1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15))
#elif REAL_LANES == 4
#define STAGES STAGE(2, (0, 1, 4, 5), (2, 3, 6, 7)) STAGE(1, (0, 4, 2, 6), (1, 5, 3, 7))
#else
#define STAGES STAGE(1, (0, 2), (1, 3))
#endif

/* to[p * width + i] = from[i * stride + p] for a square of REAL_LANES; rows from `rows` on are zero, and not read. */
static UNUSED __attribute__((noinline)) void OF(transpose)(
    const REAL *from, long stride, int rows, REAL *to, long width) {
    static const REAL zeros[REAL_LANES];
    OF(Vector) row[REAL_LANES];
    if (rows == REAL_LANES)
        UNROLL(16) for (int i = 0; i < REAL_LANES; i++) row[i] = OF(load)(from + i * stride);
    else
        UNROLL(16) for (int i = 0; i < REAL_LANES; i++) row[i] = OF(load)(i < rows ? from + i * stride : zeros);
#define STAGE(distance, low, high) \
    UNROLL(16) for (int i = 0; i < REAL_LANES; i++) \
        if (!(i & distance)) { \
            const OF(Vector) first = row[i], second = row[i + distance]; \
            row[i] = SHUFFLE(OF(Lanes), first, second, LIST low); \
            row[i + distance] = SHUFFLE(OF(Lanes), first, second, LIST high); \
        }
    STAGES
#undef STAGE
    UNROLL(16) for (int i = 0; i < REAL_LANES; i++) OF(store)(to + i * width, row[i]);
}
#undef STAGES

/* The squares of up to REAL_LANES rows; the last one overlaps the one before. */
static UNUSED void OF(pack_transposed)(const REAL *from, long stride, int rows, long depth, REAL *to, long width) {
    long p = 0;
    for (; p + REAL_LANES <= depth; p += REAL_LANES) OF(transpose)(from + p, stride, rows, to + p * width, width);
    if (p == depth) return;
    if (depth >= REAL_LANES) {
        p = depth - REAL_LANES;
        OF(transpose)(from + p, stride, rows, to + p * width, width);
        return;
    }
    for (; p < depth; p++)
        for (int i = 0; i < REAL_LANES; i++) to[p * width + i] = i < rows ? from[i * stride + p] : 0;
}
#endif

/* One to REAL_LANES - 1 numbers and zeros up to a vector: two copies of a constant size, which may overlap. */
INLINE void OF(copy_part)(const REAL *from, int count, REAL *to) {
    OF(store)(to, (OF(Vector)){0});
    const int size = count >= 8 ? 8 : count >= 4 ? 4 : count >= 2 ? 2 : 1;
    const REAL *last = from + count - size;
    REAL *to_last = to + count - size;
    switch (size) {
#define COPY(size) \
    case size: { \
        REAL first[size], second[size]; \
        memcpy(first, from, sizeof first), memcpy(second, last, sizeof second); \
        memcpy(to, first, sizeof first), memcpy(to_last, second, sizeof second); \
        break; \
    }
        COPY(8) COPY(4) COPY(2) COPY(1)
#undef COPY
    }
}

/* Rows of numbers that are next to each other. */
static UNUSED void OF(pack_in_order)(const REAL *from, long step, long depth, long columns, REAL *to, long width) {
    const long whole = columns / REAL_LANES * REAL_LANES;
    const int rest = (int)(columns - whole);
    if (columns == 2 * REAL_LANES) {
        for (long p = 0; p < depth; p++, from += step, to += width) {
            OF(store)(to, OF(load)(from));
            OF(store)(to + REAL_LANES, OF(load)(from + REAL_LANES));
        }
        return;
    }
    for (long p = 0; p < depth; p++, from += step, to += width) {
        for (long j = 0; j < whole; j += REAL_LANES) OF(store)(to + j, OF(load)(from + j));
        if (rest) OF(copy_part)(from + whole, rest, to + whole);
    }
}

/* to[p * width + j] = from[p * step + j * column] for p < depth, j < columns; zeros fill the last vector of a row. */
static UNUSED void OF(pack)(
    const REAL *from, long step, long column, long depth, long columns, REAL *to, long width) {
    if (column == 1) {
        OF(pack_in_order)(from, step, depth, columns, to, width);
        return;
    }
#if REAL_LANES > 1
    if (step == 1) {
        for (long j = 0; j < columns; j += REAL_LANES) {
            const long rows = columns - j < REAL_LANES ? columns - j : REAL_LANES;
            OF(pack_transposed)(from + j * column, column, (int)rows, depth, to + j, width);
        }
        return;
    }
#endif
    const long filled = (columns + REAL_LANES - 1) / REAL_LANES * REAL_LANES;
    for (long p = 0; p < depth; p++)
        for (long j = 0; j < filled; j++) to[p * width + j] = j < columns ? from[p * step + j * column] : 0;
}
