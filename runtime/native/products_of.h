/* Matrix products for one type of numbers (see tiles_of.h and products.h). */

#define PANEL (TILE_VECTORS * REAL_LANES)
#define PACKED_ROW ((TILE_ROWS + REAL_LANES - 1) / REAL_LANES * REAL_LANES) /* numbers of A for one step of the depth */
#define TILE_SIZE (TILE_ROWS * PANEL)

#include "thin_of.h"

/* A block of one batch: `tiles` tiles of rows times some columns, for some steps of the depth. */
typedef struct {
    const Step *s;
    const OF(Product) *product;
    OF(TileDone) done;
    long batch, row, rows, tiles, column_from, column_to, step, depth;
    bool first, last; /* block of the depth */
    bool rows_packed, panel_packed;
    REAL *packed, *sums, *panel, *tile; /* in the workspace */
} OF(Block);

INLINE long OF(row_of_tile)(const OF(Block) *block, long tile) { return block->rows * tile / block->tiles; }

/* The rows of A for one step of the depth after the other, each tile for itself. */
static UNUSED void OF(pack_rows)(const OF(Block) *block) {
    const OF(Product) *p = block->product;
    const REAL *a = p->a + block->batch * p->a_batch + block->step * p->a_step;
    for (long t = 0; t < block->tiles; t++) {
        const long i = OF(row_of_tile)(block, t), rows = OF(row_of_tile)(block, t + 1) - i;
        REAL *to = block->packed + t * PACKED_ROW * block->depth;
        OF(pack)(a + (block->row + i) * p->a_row, p->a_step, p->a_row, block->depth, rows, to, PACKED_ROW);
    }
}

/* Sets B of `work` to some columns: packed to `panel`, or where they are. */
static UNUSED void OF(set_columns)(const OF(Block) *block, long column, long columns, REAL *panel, OF(TileWork) *work) {
    const OF(Product) *p = block->product;
    work->b = p->b + block->batch * p->b_batch + block->step * p->b_step + column * p->b_column;
    work->b_row = p->b_step;
    if (!block->panel_packed && columns % REAL_LANES == 0) return;
    OF(pack)(work->b, p->b_step, p->b_column, block->depth, columns, panel, PANEL);
    work->b = panel, work->b_row = PANEL;
}

/* One tile; `sums` is where those of the blocks of the depth before are. */
INLINE void OF(multiply_rows_and_columns)(
    const OF(Block) *block, long t, long column, long columns, OF(TileWork) *work, REAL *sums) {
    const OF(Product) *p = block->product;
    const long i = OF(row_of_tile)(block, t), rows = OF(row_of_tile)(block, t + 1) - i, row = block->row + i;
    work->a = p->a + block->batch * p->a_batch + row * p->a_row + block->step * p->a_step;
    work->a_row = p->a_row, work->a_step = p->a_step;
    if (block->rows_packed)
        work->a = block->packed + t * PACKED_ROW * block->depth, work->a_row = 1, work->a_step = PACKED_ROW;
    OF(multiply_tile)((int)rows, (int)divided_up(columns, REAL_LANES), work, sums, !block->first);
    if (block->last) block->done(block->s, sums, PANEL, block->batch, row, rows, column, columns);
}

/* The columns of a panel of the block from `column` on. */
INLINE long OF(panel_from)(const OF(Block) *block, long column) {
    return block->column_to - column < PANEL ? block->column_to - column : PANEL;
}

/* A panel after the other: each stays in the first cache while all rows pass. */
static UNUSED void OF(multiply_by_panels)(const OF(Block) *block) {
    OF(TileWork) work = {.segments = 1, .depth = block->depth};
    REAL *sums = block->sums;
    for (long j = block->column_from; j < block->column_to; j += PANEL) {
        const long columns = OF(panel_from)(block, j);
        OF(set_columns)(block, j, columns, block->panel, &work);
        for (long t = 0; t < block->tiles; t++, sums += TILE_SIZE) {
            REAL *tile = block->first && block->last ? block->tile : sums;
            OF(multiply_rows_and_columns)(block, t, j, columns, &work, tile);
        }
    }
}

/* Short sums: results are written more often than operands are read, so they are computed in the order of memory. */
static UNUSED void OF(multiply_by_rows)(const OF(Block) *block) {
    OF(TileWork) work = {.segments = 1, .depth = block->depth};
    for (long t = 0; t < block->tiles; t++)
        for (long j = block->column_from; j < block->column_to; j += PANEL) {
            const long columns = OF(panel_from)(block, j);
            REAL *panel = block->sums + (j - block->column_from) * block->depth;
            if (t == 0 || !block->panel_packed) {
                OF(set_columns)(block, j, columns, panel, &work);
            } else {
                work.b = panel, work.b_row = PANEL;
            }
            OF(multiply_rows_and_columns)(block, t, j, columns, &work, block->tile);
        }
}

/* Whether to copy A: where a line of the cache gives few numbers that are needed at once, or where the rows lie so that
   they would displace each other in the cache; if there are enough panels to pay for it. */
INLINE bool OF(rows_are_packed)(const OF(Product) *p, long columns) {
    const bool crowded = p->a_row * (long)sizeof(REAL) % 2048 == 0;
    return columns > 2 * PANEL && (p->a_step != 1 || crowded);
}

/* All depth of the columns of a block. */
static UNUSED void OF(multiply_columns)(OF(Block) *block) {
    const long depth = block->product->depth, blocks = depth > 0 ? divided_up(depth, DEPTH_BLOCK) : 1;
    for (long d = 0; d < blocks; d++) {
        block->step = depth * d / blocks;
        block->depth = depth * (d + 1) / blocks - block->step;
        block->first = d == 0;
        block->last = d == blocks - 1;
        if (block->rows_packed) OF(pack_rows)(block);
        if (depth <= SHORT_DEPTH) OF(multiply_by_rows)(block);
        else OF(multiply_by_panels)(block);
    }
}

/* The rows and columns of a box in one batch, in blocks that the caches can keep. */
static UNUSED void OF(multiply_batch)(OF(Block) *block, const Box *box) {
    const OF(Product) *p = block->product;
    const long depth = p->depth < 1 ? 1 : p->depth < DEPTH_BLOCK ? p->depth : DEPTH_BLOCK;
    const long most = ROWS_BYTES / (long)(PACKED_ROW * depth * sizeof(REAL)); /* tiles of a block */
    const long tiles = divided_up(box->row_to - box->row_from, TILE_ROWS), blocks = divided_up(tiles, most);
    for (long r = 0; r < blocks; r++) {
        const long rows = box->row_to - box->row_from;
        block->row = box->row_from + rows * r / blocks;
        block->rows = box->row_from + rows * (r + 1) / blocks - block->row;
        block->tiles = divided_up(block->rows, TILE_ROWS);
        long wide = box->column_to - box->column_from;
        if (p->depth <= SHORT_DEPTH) wide = SUMS_BYTES / (long)(depth * PANEL * sizeof(REAL)) * PANEL;
        if (p->depth > DEPTH_BLOCK) wide = SUMS_BYTES / (long)(block->tiles * TILE_SIZE * sizeof(REAL)) * PANEL;
        for (long j = box->column_from; j < box->column_to; j += wide) {
            block->column_from = j;
            block->column_to = box->column_to - j < wide ? box->column_to : j + wide;
            OF(multiply_columns)(block);
        }
    }
}

/* Any product, by blocks. */
static UNUSED void OF(multiply_blocks)(const Step *s, const OF(Product) *p, OF(TileDone) done) {
    const Box box = split(s, p->batch, p->rows, p->columns, REAL_LANES);
    const long columns = box.column_to - box.column_from;
    REAL *workspace = (REAL *)workspace_of(s, s->part);
    OF(Block) block = {.s = s, .product = p, .done = done};
    block.packed = workspace;
    block.sums = block.packed + ROWS_BYTES / sizeof(REAL);
    block.panel = block.sums + SUMS_BYTES / sizeof(REAL);
    block.tile = block.panel + DEPTH_BLOCK * PANEL;
    block.rows_packed = OF(rows_are_packed)(p, columns);
    block.panel_packed = p->b_column != 1 || box.row_to - box.row_from > 2 * TILE_ROWS;
    for (block.batch = box.batch_from; block.batch < box.batch_to; block.batch++) OF(multiply_batch)(&block, &box);
}

/* Where a thread keeps its part of a sum that all threads share. */
INLINE REAL *OF(part_of_sum)(const Step *s, int part) {
    return (REAL *)(workspace_of(s, part) + ROWS_BYTES + SUMS_BYTES) + (DEPTH_BLOCK + TILE_ROWS) * PANEL;
}

static UNUSED void OF(keep_part)(
    const Step *s, const REAL *tile, long stride, long batch UNUSED, long row, long rows, long column, long columns) {
    REAL *kept = OF(part_of_sum)(s, 0) + row * PANEL + column;
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++) kept[i * PANEL + j] = tile[i * stride + j];
}

static UNUSED void OF(multiply_by_shape)(const Step *s, const OF(Product) *p, OF(TileDone) done) {
    OF(Thin) thin;
    if (OF(is_thin)(p, &thin)) OF(multiply_thin)(s, p, &thin, done);
    else OF(multiply_blocks)(s, p, done);
}

/* A single tile of a long sum: each thread adds up a share of the depth, then the first one adds the parts in order. */
static UNUSED void OF(multiply_shared_depth)(const Step *s, const OF(Product) *p, OF(TileDone) done) {
    long from, to;
    share(p->depth, 64, s->part, s->parts, &from, &to);
    Step alone = *s;
    alone.part = 0, alone.parts = 1, alone.workspaces = workspace_of(s, s->part);
    OF(Product) own = *p;
    own.depth = to - from, own.a += from * p->a_step, own.b += from * p->b_step;
    OF(multiply_by_shape)(&alone, &own, OF(keep_part));
    barrier(s);
    if (s->part == 0) {
        REAL *sum = OF(part_of_sum)(s, 0);
        for (int part = 1; part < s->parts; part++)
            for (long i = 0; i < p->rows; i++)
                for (long j = 0; j < p->columns; j++) sum[i * PANEL + j] += OF(part_of_sum)(s, part)[i * PANEL + j];
        done(s, sum, PANEL, 0, 0, p->rows, 0, p->columns);
    }
    barrier(s); /* the parts have been read: workspaces are free again */
}

/* The product; all threads call it. `done` gets each tile of the result once. There are barriers inside if the threads
   share the depth of a single tile, but none at the end of other products. */
TEMPLATE void OF(multiply)(const Step *s, const OF(Product) *p, OF(TileDone) done) {
    const bool one_tile = p->batch == 1 && p->rows <= TILE_ROWS && p->columns <= REAL_LANES;
    if (s->parts > 1 && one_tile && p->rows * p->columns > 0 && p->depth >= 4096) OF(multiply_shared_depth)(s, p, done);
    else OF(multiply_by_shape)(s, p, done);
}

#undef PANEL
#undef PACKED_ROW
#undef TILE_SIZE
