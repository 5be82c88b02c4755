/* The gradient of the input by adding: pixels of dy times the filters are patches of dx, which overlap.

   A tile is the same column of several rows of dy, for a row of the window: its results are KW * C contiguous numbers
   of dx, in another row of dx for each row of the tile. Few channels leave no lanes unused, and no tap lies outside of
   the image. The sums of some images, or of a band of one, are complete before they are delivered. */
#pragma once
#include "tiles.h"
#include "windows.h"

#define SCATTERED_BYTES (1L << 18) /* of sums at once; half of the strip */
#define MOST_COLUMNS_OF_RESULTS 128

/* Rows [from, to) of dx, in `count` images from n: all rows, with those that are padding, or a band of one image. */
typedef struct { long n, count, from, to; } Band;

typedef struct {
    const Convolution *c;
    long depth, filters, columns; /* of a group: channels of dx and of dy; numbers of a row of the window */
    long panels, rows, row;       /* of a row of the window; rows with padding; numbers from row to row of the sums */
    long copied;                  /* numbers from row to row of a copy of dy; 0 if it is read in place */
    const float *packed, *dy;
    float *sums, *copy;
    long group;
} Scatter;

UNUSED static Scatter scatter_of(const Convolution *c) {
    const long depth = c->C / c->groups, filters = c->F / c->groups, columns = c->KW * depth;
    const long width = larger_of(c->W + c->pad_left, (c->OW - 1) * c->stride_x + c->KW);
    const long row = width * depth, line = c->OW * c->F;
    return (Scatter){
        .c = c, .depth = depth, .filters = filters, .columns = columns,
        .panels = (columns + TILE_VECTORS * LANES - 1) / (TILE_VECTORS * LANES),
        .rows = larger_of(c->H + c->pad_top, (c->OH - 1) * c->stride_y + (c->KH - 1) * c->dilation_y + 1),
        .row = 4 * row % 4096 < 64 ? row + 16 : row,
        .copied = 4 * line % 2048 < 64 ? (filters % 1024 < 16 ? filters + 16 : filters) : 0,
    };
}

INLINE long packed_size(const Scatter *g) { return g->c->KH * g->panels * g->filters * TILE_VECTORS * LANES; }

/* Whether adding is less work: vectors for a pixel of dy, and the sums that are read and written. */
UNUSED static bool is_scattered(const Convolution *c) {
    if (c->dilation_x != 1 || c->N * c->OH * c->OW * c->KH * c->KW * c->F * c->C == 0) return false;
    const Scatter g = scatter_of(c);
    if (4 * packed_size(&g) > FILTER_BYTES || 4 * g.row * (c->KH * c->dilation_y + c->stride_y) > SCATTERED_BYTES)
        return false;
    if (g.copied && 4 * g.copied * TILE_ROWS > COLUMN_BYTES) return false;
    const double row = (double)((g.columns + LANES - 1) / LANES), pixel = (double)((g.depth + LANES - 1) / LANES);
    return row * (g.filters + 11) < c->KW * pixel * g.filters;
}

/* The filters of a group for each row of the window, as panels [filters, vectors * LANES], zeros after the last. */
UNUSED static void pack_scattered(const Scatter *g, const float *w, float *to) {
    const Convolution *c = g->c;
    const long width = TILE_VECTORS * LANES;
    for (long y = 0; y < c->KH; ++y)
        for (long panel = 0; panel < g->panels; ++panel, to += g->filters * width)
            for (long j = 0; j < width; ++j) {
                const long column = panel * width + j;
                const float *from = w + (y * g->columns + column) * c->F + g->group * g->filters;
                for (long f = 0; f < g->filters; ++f) to[f * width + j] = column < g->columns ? from[f] : 0;
            }
}

/* to += from, exactly n numbers. */
INLINE void add_numbers(float *to, const float *from, long n) {
    typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
    long j = 0;
    for (; j + LANES <= n; j += LANES) store(to + j, load(to + j) + load(from + j));
    for (; j + 4 <= n; j += 4) *(Four *)(to + j) += *(const Four *)(from + j);
    for (; j < n; ++j) to[j] += from[j];
}

/* Lines [from, to) of dy, counted over all images of the band, at column q: adds their products with row y of the
   window. */
UNUSED static void scatter_tile(
    const Scatter *g, const Band *band, const float *a, long a_row, long from, long to, long q, long y) {
    _Alignas(64) float tile[TILE_ROWS * TILE_VECTORS * LANES];
    const Convolution *c = g->c;
    const long width = TILE_VECTORS * LANES, rows = to - from;
    float *places[TILE_ROWS];
    float *place = g->sums + (y * c->dilation_y - band->from) * g->row + q * c->stride_x * g->depth;
    long p = from % c->OH;
    place += (from / c->OH * g->rows + p * c->stride_y) * g->row;
    for (long i = 0; i < rows; ++i) {
        places[i] = place;
        place += c->stride_y * g->row;
        if (++p == c->OH) p = 0, place += (g->rows - c->OH * c->stride_y) * g->row;
    }
    for (long panel = 0; panel < g->panels; ++panel) {
        const long columns = smaller_of(width, g->columns - panel * width);
        const TileWork work = {
            .segments = 1, .depth = g->filters, .a = a, .a_row = a_row, .a_step = 1,
            .b = g->packed + (y * g->panels + panel) * g->filters * width, .b_row = width,
        };
        multiply_tile((int)rows, columns > LANES ? 2 : 1, &work, tile, false);
        if (columns == width)
            for (long i = 0; i < rows; ++i) add_numbers(places[i] + panel * width, tile + i * width, width);
        else
            for (long i = 0; i < rows; ++i) add_numbers(places[i] + panel * width, tile + i * width, columns);
    }
}

/* Lines [from, to) of dy, no more than a tile has rows, for the rows [y, y_end) of the window. */
UNUSED static void scatter_lines(const Scatter *g, const Band *band, long from, long to, long y, long y_end) {
    const Convolution *c = g->c;
    const float *a = g->dy + (band->n * c->OH + from) * c->OW * c->F + g->group * g->filters;
    const long line = c->OW * c->F;
    for (long q = 0; q < c->OW; ++q, a += c->F) {
        if (g->copied)
            for (long i = 0; i < to - from; ++i) memcpy(g->copy + i * g->copied, a + i * line, 4 * g->filters);
        for (long k = y; k < y_end; ++k)
            scatter_tile(g, band, g->copied ? g->copy : a, g->copied ? g->copied : line, from, to, q, k);
    }
}

/* The same for any number of lines, in even tiles. */
UNUSED static void scatter_run(const Scatter *g, const Band *band, long from, long to, long y, long y_end) {
    const long lines = to - from, tiles = (lines + TILE_ROWS - 1) / TILE_ROWS;
    for (long t = 0; t < tiles; ++t)
        scatter_lines(g, band, from + lines * t / tiles, from + lines * (t + 1) / tiles, y, y_end);
}

UNUSED static void scatter_band(const Step *s, const Scatter *g, const Band *band, TileDone done) {
    const Convolution *c = g->c;
    memset(g->sums, 0, 4 * (band->count > 1 ? band->count * g->rows : band->to - band->from) * g->row);
    if (band->from == 0 && band->to == g->rows) scatter_run(g, band, 0, band->count * c->OH, 0, c->KH);
    else
        for (long y = 0; y < c->KH; ++y) { /* lines with from <= p * stride + y * dilation < to */
            const long start = y * c->dilation_y - band->from, height = band->to - band->from;
            const long first = first_tap(start, c->stride_y), last = last_tap(start, c->stride_y, height, c->OH);
            if (first < last) scatter_run(g, band, first, last, y, y + 1);
        }
    for (long n = 0; n < band->count; ++n)
        for (long h = larger_of(band->from, c->pad_top); h < smaller_of(band->to, c->pad_top + c->H); ++h)
            for (long d = 0; d < g->depth; d += MOST_COLUMNS_OF_RESULTS)
                done(s, g->sums + (n * g->rows + h - band->from) * g->row + c->pad_left * g->depth + d, g->depth, 0,
                    ((band->n + n) * c->H + h - c->pad_top) * c->W, c->W, g->group * g->depth + d,
                    smaller_of(MOST_COLUMNS_OF_RESULTS, g->depth - d));
}

/* Images at once: as many as fit, the fewest that leave no row of a tile unused. */
UNUSED static long images_of_band(const Scatter *g) {
    const long most = SCATTERED_BYTES / 4 / (g->rows * g->row);
    long best = 1;
    double used = 0;
    for (long count = 1; count <= smaller_of(most, TILE_ROWS); ++count) {
        const long lines = count * g->c->OH, tiles = (lines + TILE_ROWS - 1) / TILE_ROWS;
        if ((double)lines / tiles > used * 1.02) used = (double)lines / tiles, best = count;
    }
    return most < 1 ? 0 : best;
}

/* dx[N, H, W, C] from dy[N, OH, OW, F]; each thread computes its share of the images, or of bands if these are few or
   large. */
UNUSED static void scatter_input_grad(
    const Step *s, const Convolution *c, const float *dy, const float *w, TileDone done) {
    Scatter g = scatter_of(c);
    const long images = images_of_band(&g), most = larger_of(1, SCATTERED_BYTES / 4 / g.row);
    const long wanted = c->N < 4 * s->parts ? (4 * s->parts + c->N - 1) / c->N : 1;
    const long least = larger_of(1, smaller_of(g.rows, larger_of(wanted, images ? 1 : (g.rows + most - 1) / most)));
    const long bands = images && s->parts == 1 ? 1 : least;
    long from, to;
    share(c->N * bands, 1, s->part, s->parts, &from, &to);
    float *packed = filter_area(s, s->part);
    g.dy = dy, g.packed = packed, g.sums = strip_area(s, c), g.copy = column_area(s, c);
    if (from < to)
        for (g.group = 0; g.group < c->groups; ++g.group) {
            pack_scattered(&g, w, packed);
            for (long i = from, end; i < to; i = end) {
                const long n = i / bands, band = i % bands;
                end = bands > 1 ? i + 1 : smaller_of(to, i + images);
                const Band some = {n, end - i, g.rows * band / bands, g.rows * (band + 1) / bands};
                scatter_band(s, &g, &some, done);
            }
        }
}
