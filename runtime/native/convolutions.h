/* Convolutions of images, channels last, and their two gradients, in tiles of products (tiles.h).

   Forward, and for the gradient of the input (windows.h), a tile is some pixels times some filters, and its depth the
   taps and channels of the window. No matrix of patches is built: a row of a window is contiguous in the image.
   - slide_rows: the pixels of a tile are neighbours in a row. Taps above and below the image are left out; columns
     outside of it are zeros in a copy of a few rows.
   - slide_images: they are the same pixel of several images, so all taps outside of the image are left out. Better for
     small images.
   The gradient of the input is computed by adding (scatter.h) where channels would leave lanes unused.
   The gradient of the filters is a tile of entries of the window times some filters, and its depth the pixels of a few
   rows. Float sums are short: over some rows of an image; then these are added. */
#pragma once
#include "scatter.h"
#include "tiles.h"
#include "windows.h"
#ifdef WITHOUT_DEPTHWISE /* defined for a graph that has none, it halves the time of compiling */
#define is_depthwise(c) false
#define convolve_depthwise(...)
#define depthwise_input_grad(...)
#define depthwise_filter_grad(...)
#else
#include "depthwise.h"
#endif


/* Packed filters of one group: `count` panels of `columns` results each, the last one perhaps of fewer. */
typedef struct {
    const float *packed;
    long group, first, count; /* panels of the group */
} Panels;

INLINE long panels_of(long columns) { return (columns + TILE_COLUMNS - 1) / TILE_COLUMNS; }
INLINE int vectors_of(long columns) { return (int)((columns + LANES - 1) / LANES); }
INLINE long columns_of(long panel, long columns) { return smaller_of(TILE_COLUMNS, columns - panel * TILE_COLUMNS); }

/* Filters from `first` of a group as [KH, KW, depth, width], zeros after the last one. */
static UNUSED void pack_filters(const Window *k, long group, long first, long columns, long width, float *to) {
    for (long y = 0; y < k->KH; ++y)
        for (long x = 0; x < k->KW; ++x, to += k->depth * width) {
            const float *from = k->w + y * k->w_y + x * k->w_x + group * k->w_group + first * k->w_filter;
            if (k->w_filter == 1) {
                for (long d = 0; d < k->depth; ++d) memcpy(to + d * width, from + d * k->w_depth, 4 * columns);
            } else {
                for (long block = 0; block < k->depth; block += 16) /* turned, a few lines of the cache at a time */
                    for (long j = 0; j < columns; ++j)
                        for (long d = block; d < smaller_of(block + 16, k->depth); ++d)
                            to[d * width + j] = from[d * k->w_depth + j * k->w_filter];
            }
            if (columns < width)
                for (long d = 0; d < k->depth; ++d) memset(to + d * width + columns, 0, 4 * (width - columns));
        }
}

/* Images as the tiles read them: all rows and columns from (top, left), perhaps with zeros around. */
typedef struct { const float *data; long row, pixel, top, left; } Source;

/* The products of one tile; `at` is where the window of its first pixel starts, its pixels are a_row numbers apart. */
static UNUSED void window_tile(
    const Window *k, const Source *source, long at, long a_row, Taps taps, const float *panel, int rows, int vectors,
    float *tile) {
    const long height = taps.y_end - taps.y, width = taps.x_end - taps.x, b_row = vectors * LANES;
    if (height <= 0 || width <= 0) {
        memset(tile, 0, 4 * rows * TILE_COLUMNS);
        return;
    }
    const long a_y = k->dilation_y * source->row, a_x = k->dilation_x * source->pixel;
    const long b_x = k->depth * b_row, b_y = k->KW * b_x;
    TileWork work = {
        .a = source->data + (at + taps.y * a_y + taps.x * a_x), .a_row = a_row, .a_step = 1,
        .b = panel + taps.y * b_y + taps.x * b_x, .b_row = b_row,
    };
    if (a_x == k->depth || width == 1) { /* a row of the window is contiguous */
        work.segments = height, work.depth = width * k->depth, work.a_segment = a_y, work.b_segment = b_y;
        multiply_tile(rows, vectors, &work, tile, false);
        return;
    }
    work.segments = width, work.depth = k->depth, work.a_segment = a_x, work.b_segment = b_x;
    for (long y = 0; y < height; ++y, work.a += a_y, work.b += b_y) multiply_tile(rows, vectors, &work, tile, y > 0);
}

/* Pixels in a row ------------------------------------------------------------------------------------------------- */

INLINE long tiles_in_row(const Window *k) { return (k->OW + TILE_ROWS - 1) / TILE_ROWS; }

/* Columns that the windows of a row reach. */
INLINE long reached_columns(const Window *k) { return (k->OW - 1) * k->stride_x + (k->KW - 1) * k->dilation_x + 1; }

INLINE bool leaves_row(const Window *k) { return k->left > 0 || reached_columns(k) - k->left > k->W; }

/* Rows [top, end) of an image that results [q, q_end) of a row read: only the channels of a group, with zeros in the
   columns outside of the image. */
static UNUSED Source copy_rows(
    const Window *k, const float *image, long group, long top, long end, long q, long q_end, float *strip) {
    const long columns = (q_end - 1 - q) * k->stride_x + (k->KW - 1) * k->dilation_x + 1, depth = k->depth;
    const long left = k->left - q * k->stride_x; /* columns of the strip before the image, perhaps negative */
    const long before = smaller_of(columns, larger_of(0, left));
    const long after = larger_of(before, smaller_of(columns, k->W + left));
    for (long y = top; y < end; ++y) {
        float *to = strip + (y - top) * columns * depth;
        const float *from = image + (y * k->W - left) * k->C + group * depth;
        memset(to, 0, 4 * before * depth);
        if (depth == k->C) memcpy(to + before * depth, from + before * k->C, 4 * (after - before) * depth);
        else
            for (long x = before; x < after; ++x) memcpy(to + x * depth, from + x * k->C, 4 * depth);
        memset(to + after * depth, 0, 4 * (columns - after) * depth);
    }
    return (Source){.data = strip, .row = columns * depth, .pixel = depth, .top = top, .left = -left};
}

/* Rows of results whose windows fit half of the strip; 0 if those of one row do not fit. */
INLINE long rows_in_strip(const Window *k) {
    const long rows = STRIP_BYTES / 8 / larger_of(1, reached_columns(k) * k->depth) - (k->KH - 1) * k->dilation_y - 1;
    return rows < 0 ? 0 : rows / k->stride_y + 1;
}

/* Pixels of a row of results whose windows fit half of the strip. */
INLINE long pixels_in_strip(const Window *k) {
    const long height = (k->KH - 1) * k->dilation_y + 1;
    const long columns = STRIP_BYTES / 8 / larger_of(1, height * k->depth) - (k->KW - 1) * k->dilation_x - 1;
    return columns < 0 ? 1 : columns / k->stride_x + 1;
}

/* Results that are computed together: rows [p, end) of image n, in them the pixels [q, q_end). */
typedef struct { long n, p, end, q, q_end; } Lines;

/* What some results read. */
static UNUSED Source source_of_rows(const Window *k, const float *x, long group, const Lines *lines, float *strip) {
    const float *image = x + lines->n * k->H * k->W * k->C;
    if (!leaves_row(k) || k->KH == 0 || k->KW == 0)
        return (Source){.data = image + group * k->depth, .row = k->W * k->C, .pixel = k->C};
    const long top = larger_of(0, lines->p * k->stride_y - k->top);
    const long bottom = smaller_of(k->H, (lines->end - 1) * k->stride_y - k->top + (k->KH - 1) * k->dilation_y + 1);
    return copy_rows(k, image, group, top, bottom, lines->q, lines->q_end, strip);
}

/* Results of tiles from `begin` whose windows fit the strip: of some rows, or of a part of one. */
static UNUSED Lines next_lines(const Window *k, long begin, long to, long *end) {
    const long across = tiles_in_row(k), rows = rows_in_strip(k), line = begin / across, t = begin % across;
    const long n = line / k->OH, p = line % k->OH;
    if (rows) {
        *end = smaller_of(to, (n * k->OH + smaller_of(k->OH, p + rows)) * across);
        return (Lines){n, p, (*end - 1) / across - n * k->OH + 1, 0, k->OW};
    }
    *end = smaller_of(to, smaller_of((line + 1) * across, begin + larger_of(1, pixels_in_strip(k) / TILE_ROWS)));
    return (Lines){n, p, p + 1, k->OW * t / across, k->OW * (*end - line * across) / across};
}

/* The tiles [from, to) of all rows of all images, for some panels of filters. */
static UNUSED void slide_rows(
    const Step *s, const Window *k, const float *x, const Panels *panels, long from, long to, float *strip,
    TileDone done) {
    _Alignas(64) float tile[TILE_ROWS * TILE_COLUMNS];
    const long across = tiles_in_row(k), panel_size = k->KH * k->KW * k->depth * TILE_COLUMNS;
    for (long begin = from, end; begin < to; begin = end) {
        const Lines lines = next_lines(k, begin, to, &end);
        const long n = lines.n;
        const Source source = source_of_rows(k, x, panels->group, &lines, strip);
        for (long i = begin; i < end; ++i) {
            const long p = i / across - n * k->OH, t = i % across;
            const long q = k->OW * t / across, rows = k->OW * (t + 1) / across - q;
            const long y = p * k->stride_y - k->top, column = q * k->stride_x - k->left;
            const Taps taps = {
                first_tap(y, k->dilation_y), last_tap(y, k->dilation_y, k->H, k->KH), 0, k->KW};
            const long at = (y - source.top) * source.row + (column - source.left) * source.pixel;
            for (long j = 0; j < panels->count; ++j) {
                const long panel = panels->first + j, columns = columns_of(panel, k->filters);
                window_tile(k, &source, at, k->stride_x * source.pixel, taps, panels->packed + j * panel_size,
                    (int)rows, vectors_of(columns), tile);
                deliver_pixels(s, done, tile, TILE_COLUMNS, result_row(k, n, p, q), k->step_x, rows,
                    panels->group * k->filters + panel * TILE_COLUMNS, columns);
            }
        }
    }
}

/* One pixel of several images -------------------------------------------------------------------------------------- */

/* Rows of a tile that are a multiple of 4096 bytes apart would share one set of the cache. */
INLINE bool images_collide(long numbers) { return 4 * numbers % 4096 < 64; }

INLINE long image_size(const Window *k) { return k->H * k->W * k->depth + 16; }

INLINE bool are_copied(const Window *k) {
    return images_collide(k->H * k->W * k->C) && 4 * TILE_ROWS * image_size(k) <= STRIP_BYTES;
}

/* Images of a tile: of those that collide, no more than a set has lines. */
INLINE long images_at_once(const Window *k) {
    return images_collide(k->H * k->W * k->C) && !are_copied(k) ? smaller_of(8, TILE_ROWS) : TILE_ROWS;
}

/* Images [n, n + count) for a group, in place or copied further apart. */
static UNUSED Source source_of_images(
    const Window *k, const float *x, long group, long n, long count, float *strip, long *image) {
    const long size = k->H * k->W * k->C;
    const float *from = x + n * size + group * k->depth;
    *image = size;
    if (!are_copied(k)) return (Source){.data = from, .row = k->W * k->C, .pixel = k->C};
    *image = image_size(k);
    for (long i = 0; i < count; ++i)
        for (long p = 0; p < k->H * k->W; ++p)
            memcpy(strip + i * *image + p * k->depth, from + i * size + p * k->C, 4 * k->depth);
    return (Source){.data = strip, .row = k->W * k->depth, .pixel = k->depth};
}

/* All pixels of images [from, to), for some panels of filters. */
static UNUSED void slide_images(
    const Step *s, const Window *k, const float *x, const Panels *panels, long from, long to, float *strip,
    TileDone done) {
    _Alignas(64) float tile[TILE_ROWS * TILE_COLUMNS];
    const long at_once = images_at_once(k), blocks = (to - from + at_once - 1) / at_once;
    const long panel_size = k->KH * k->KW * k->depth * TILE_COLUMNS;
    for (long block = 0; block < blocks; ++block) {
        const long n = from + (to - from) * block / blocks, count = from + (to - from) * (block + 1) / blocks - n;
        long image;
        const Source source = source_of_images(k, x, panels->group, n, count, strip, &image);
        for (long p = 0; p < k->OH; ++p)
            for (long q = 0; q < k->OW; ++q) {
                const long y = p * k->stride_y - k->top, column = q * k->stride_x - k->left;
                const Taps taps = {
                    first_tap(y, k->dilation_y), last_tap(y, k->dilation_y, k->H, k->KH),
                    first_tap(column, k->dilation_x), last_tap(column, k->dilation_x, k->W, k->KW)};
                for (long j = 0; j < panels->count; ++j) {
                    const long panel = panels->first + j, columns = columns_of(panel, k->filters);
                    window_tile(k, &source, y * source.row + column * source.pixel, image, taps,
                        panels->packed + j * panel_size, (int)count, vectors_of(columns), tile);
                    deliver_pixels(s, done, tile, TILE_COLUMNS, result_row(k, n, p, q), k->result_H * k->result_W,
                        count, panels->group * k->filters + panel * TILE_COLUMNS, columns);
                }
            }
    }
}

/* Forward and gradient of the input -------------------------------------------------------------------------------- */

/* Whether tiles of one pixel of several images are less work, in steps of the micro-kernel for a row of results. A tile
   of r rows takes about r + 3; a call for each pixel about 30. */
static UNUSED bool images_are_better(const Window *k, long images) {
    if (images < 4) return false;
    long taps = 0;
    for (long q = 0; q < k->OW; ++q) {
        const long column = q * k->stride_x - k->left;
        taps += larger_of(0, last_tap(column, k->dilation_x, k->W, k->KW) - first_tap(column, k->dilation_x));
    }
    const long at_once = images_at_once(k);
    const double rows = (double)images / ((images + at_once - 1) / at_once), depth = k->KH * k->depth;
    const double in_images = taps * (1 + 3 / rows) * depth + 30 * k->OW;
    const double in_rows = (k->OW + 3 * tiles_in_row(k)) * k->KW * depth;
    return 1.1 * in_images < in_rows;
}

/* Windows of one tap that move by one pixel are a plain product: all pixels of all images are one row. */
static UNUSED Window flattened_window(const Window *k) {
    Window flat = *k;
    const bool plain = k->KH == 1 && k->KW == 1 && k->stride_y == 1 && k->stride_x == 1 && k->top == 0 &&
        k->left == 0 && k->OH == k->H && k->OW == k->W && k->step_y == 1 && k->step_x == 1;
    if (plain) {
        flat.N = flat.H = flat.OH = flat.result_H = 1;
        flat.W = flat.OW = flat.result_W = k->N * k->H * k->W;
    }
    return flat;
}

/* All results of a window; each thread computes its share of pixels, or of filters if there are few pixels. */
static UNUSED void slide_window(
    const Step *s, const Convolution *c, const Window *given, const float *x, TileDone done) {
    const Window window = flattened_window(given), *k = &window;
    if (k->N <= 0 || k->OH <= 0 || k->OW <= 0 || k->filters <= 0) return;
    const bool images = images_are_better(k, k->N / s->parts);
    const long units = images ? k->N : k->N * k->OH * tiles_in_row(k);
    const long in_group = panels_of(k->filters), panels = k->groups * in_group;
    /* Filters are packed by each thread: a share of pixels is worth it only if there are many. */
    const bool few_pixels = k->N * k->OH * k->OW < 64 * s->parts && panels >= 2 * s->parts;
    const bool by_filters = few_pixels || (units < 4 * s->parts && panels >= s->parts);
    long from = 0, to = units, panel = 0, last = panels;
    if (by_filters) share(panels, 1, s->part, s->parts, &panel, &last);
    else share(units, 1, s->part, s->parts, &from, &to);
    if (from >= to) return;
    const long panel_size = k->KH * k->KW * k->depth * TILE_COLUMNS;
    const long at_once = larger_of(1, FILTER_BYTES / 4 / larger_of(1, panel_size));
    float *packed = filter_area(s, s->part), *strip = strip_area(s, c);
    while (panel < last) {
        const long group = panel / in_group, first = panel % in_group;
        const Panels some = {packed, group, first, smaller_of(smaller_of(at_once, last - panel), in_group - first)};
        for (long j = 0; j < some.count; ++j) {
            const long columns = columns_of(first + j, k->filters);
            pack_filters(k, group, (first + j) * TILE_COLUMNS, columns, vectors_of(columns) * LANES,
                packed + j * panel_size);
        }
        (images ? slide_images : slide_rows)(s, k, x, &some, from, to, strip, done);
        panel += some.count;
    }
}

/* y[N, OH, OW, F] = x[N, H, W, C] * w: rows are pixels N * OH * OW, columns are filters. */
TEMPLATE void convolve(
    const Step *s, const Convolution *given, const float *x, const float *w, TileDone done) {
    const Convolution convolution = turned_images(given), *c = &convolution;
    if (is_depthwise(c)) {
        convolve_depthwise(s, c, x, w, done);
        return;
    }
    const Window window = forward_window(c, w);
    slide_window(s, c, &window, x, done);
}

/* dx[N, H, W, C] from dy[N, OH, OW, F]: rows are pixels N * H * W, columns are channels. */
TEMPLATE void convolve_input_grad(
    const Step *s, const Convolution *given, const float *dy, const float *w, TileDone done) {
    const Convolution convolution = turned_images(given), *c = &convolution;
    if (is_depthwise(c)) {
        depthwise_input_grad(s, c, dy, w, done);
        return;
    }
    if (is_scattered(c)) {
        scatter_input_grad(s, c, dy, w, done);
        return;
    }
    for (long y = 0; y < smaller_of(c->stride_y, c->H); ++y)
        for (long x = 0; x < smaller_of(c->stride_x, c->W); ++x) {
            const Window window = gradient_window(c, w, y, x);
            slide_window(s, c, &window, dy, done);
        }
}

/* Gradient of the filters ------------------------------------------------------------------------------------------ */

/* A run is the entries of the window that are contiguous in the image: the channels of one tap, or, if these are few, a
   row of the window. */
typedef struct {
    const Convolution *c;
    Window window;
    bool whole_rows;
    long entries, runs; /* of one run; of the window */
    long panels;        /* of one group */
    long rows, pixels;  /* of results at once: some rows, or a part of one */
} FilterGrad;

static UNUSED FilterGrad filter_grad_of(const Convolution *c) {
    FilterGrad g = {.c = c, .window = forward_window(c, NULL)};
    g.whole_rows = c->groups == 1 && c->dilation_x == 1 && c->C < 8;
    g.entries = g.whole_rows ? c->KW * c->C : g.window.depth;
    g.runs = g.whole_rows ? c->KH : c->KH * c->KW;
    g.panels = panels_of(g.window.filters);
    const long numbers = c->F + c->stride_y * c->stride_x * c->C; /* of x and dy, for a pixel of the result */
    const long in_cache = larger_of(64, FILTER_BYTES / 4 / larger_of(1, numbers));
    long most_pixels = smaller_of(COLUMN_BYTES / 4 / TILE_COLUMNS, in_cache);
    if (g.whole_rows && leaves_row(&g.window)) {
        most_pixels = smaller_of(most_pixels, pixels_in_strip(&g.window));
        g.rows = rows_in_strip(&g.window);
    } else g.rows = most_pixels;
    g.rows = larger_of(1, smaller_of(g.rows, most_pixels / larger_of(1, c->OW)));
    g.pixels = g.rows > 1 ? c->OW : smaller_of(c->OW, most_pixels);
    return g;
}

/* A panel of columns of dy, [pixels, width], for some results. */
typedef struct { const float *dy; long width; } Columns;

/* Adds the products of some rows of results to the sums of a run [entries, TILE_COLUMNS]. */
static UNUSED void add_run(
    const FilterGrad *g, const Source *source, const Lines *lines, const Columns *columns, long run, int vectors,
    float *sums) {
    const Window *k = &g->window;
    const long y = g->whole_rows ? run : run / k->KW, x = g->whole_rows ? 0 : run % k->KW;
    const long row = y * k->dilation_y - k->top, column = x * k->dilation_x - k->left;
    const long p = larger_of(lines->p, first_tap(row, k->stride_y));
    const long p_end = last_tap(row, k->stride_y, k->H, lines->end);
    const long q = g->whole_rows ? lines->q : larger_of(lines->q, first_tap(column, k->stride_x));
    const long q_end = g->whole_rows ? lines->q_end : last_tap(column, k->stride_x, k->W, lines->q_end);
    if (p >= p_end || q >= q_end) return;
    const float *a = source->data + ((p * k->stride_y + row - source->top) * source->row +
        (q * k->stride_x + column - source->left) * source->pixel);
    TileWork work = {
        .segments = p_end - p, .depth = q_end - q, .a_segment = k->stride_y * source->row, .a_row = 1,
        .a_step = k->stride_x * source->pixel,
        .b = columns->dy + ((p - lines->p) * k->OW + q - lines->q) * columns->width,
        .b_segment = k->OW * columns->width, .b_row = columns->width,
    };
    const long tiles = (g->entries + TILE_ROWS - 1) / TILE_ROWS;
    for (long t = 0; t < tiles; ++t) {
        const long entry = g->entries * t / tiles, end = g->entries * (t + 1) / tiles;
        work.a = a + entry;
        multiply_tile((int)(end - entry), vectors, &work, sums + entry * TILE_COLUMNS, true);
    }
}

/* Columns of dy for some results: in place, or copied where reading whole vectors would pass the end of dy. */
static UNUSED Columns columns_of_gradient(
    const FilterGrad *g, const float *dy, const Lines *lines, long column, long columns, float *area) {
    const Convolution *c = g->c;
    const long first = (lines->n * c->OH + lines->p) * c->OW + lines->q;
    const long count = (lines->end - 1 - lines->p) * c->OW + lines->q_end - lines->q;
    const long width = vectors_of(columns) * LANES, left = (c->N * c->OH * c->OW - first - count) * c->F;
    const float *from = dy + first * c->F + column;
    if (columns == width || left >= width) return (Columns){from, c->F};
    for (long i = 0; i < count; ++i) {
        memcpy(area + i * width, from + i * c->F, 4 * columns);
        memset(area + i * width + columns, 0, 4 * (width - columns));
    }
    return (Columns){area, width};
}

/* Adds, for some results, the sums of the runs [first, last): (group, panel, run) in order. */
static UNUSED void add_lines_of_runs(
    const Step *s, const FilterGrad *g, const float *x, const float *dy, const Lines *lines, long first, long last,
    float *sums) {
    const Convolution *c = g->c;
    Source source = {.data = x + lines->n * c->H * c->W * c->C, .row = c->W * c->C, .pixel = c->C};
    if (g->whole_rows) source = source_of_rows(&g->window, x, 0, lines, strip_area(s, c));
    Columns columns = {0};
    for (long unit = first; unit < last; ++unit) {
        const long run = unit % g->runs, panel = unit / g->runs % g->panels, group = unit / g->runs / g->panels;
        const long width = columns_of(panel, g->window.filters);
        if (run == 0 || unit == first)
            columns = columns_of_gradient(
                g, dy, lines, group * g->window.filters + panel * TILE_COLUMNS, width, column_area(s, c));
        Source here = source;
        here.data += group * g->window.depth;
        add_run(g, &here, lines, &columns, run, vectors_of(width), sums + (unit - first) * g->entries * TILE_COLUMNS);
    }
}

/* The same for rows [from, to) of the results of all images. */
static UNUSED void add_runs(
    const Step *s, const FilterGrad *g, const float *x, const float *dy, long from, long to, long first, long last,
    float *sums) {
    const long height = g->c->OH, width = g->c->OW;
    for (long line = from, end; line < to; line = end) {
        const long n = line / height, p = line % height, rows = smaller_of(smaller_of(height - p, g->rows), to - line);
        end = line + rows;
        for (long q = 0; q < width; q += g->pixels) {
            const Lines lines = {n, p, p + rows, q, smaller_of(width, q + g->pixels)};
            add_lines_of_runs(s, g, x, dy, &lines, first, last, sums);
        }
    }
}

/* Entries [from, to) of the runs from `first`, complete in `sums`. */
static UNUSED void deliver_runs(
    const Step *s, const FilterGrad *g, const float *sums, long first, long from, long to, TileDone done) {
    for (long i = from; i < to;) {
        const long unit = first + i / g->entries, entry = i % g->entries;
        const long rows = smaller_of(smaller_of(TILE_ROWS, g->entries - entry), to - i);
        const long run = unit % g->runs, panel = unit / g->runs % g->panels, group = unit / g->runs / g->panels;
        done(s, sums + (i - from) * TILE_COLUMNS, TILE_COLUMNS, 0, run * g->entries + entry, rows,
            group * g->window.filters + panel * TILE_COLUMNS, columns_of(panel, g->window.filters));
        i += rows;
    }
}

/* The sums of all threads, in their order, for this thread's share of the entries. */
static UNUSED void combine_runs(const Step *s, const FilterGrad *g, long units, TileDone done) {
    _Alignas(64) float sums[TILE_ROWS * TILE_COLUMNS];
    long from, to;
    share(units * g->entries, 1, s->part, s->parts, &from, &to);
    for (long i = from, end; i < to; i = end) {
        end = smaller_of(to, i + TILE_ROWS);
        memcpy(sums, filter_area(s, 0) + i * TILE_COLUMNS, 4 * (end - i) * TILE_COLUMNS);
        for (int part = 1; part < s->parts; ++part) {
            const float *more = filter_area(s, part) + i * TILE_COLUMNS;
            for (long j = 0; j < (end - i) * TILE_COLUMNS; ++j) sums[j] += more[j];
        }
        deliver_runs(s, g, sums, 0, i, end, done);
    }
}

/* dw[KH, KW, C / groups, F] from x and dy: rows are KH * KW * C / groups, columns are filters. Few sums: each thread
   has its own for its share of the rows of results. Many: each thread computes its share of the sums, in chunks. */
TEMPLATE void convolve_filter_grad(
    const Step *s, const Convolution *given, const float *x, const float *dy, TileDone done) {
    const Convolution convolution = turned_images(given), *c = &convolution;
    if (is_depthwise(c)) {
        depthwise_filter_grad(s, c, x, dy, done);
        return;
    }
    const FilterGrad grad = filter_grad_of(c), *g = &grad;
    const long units = c->groups * g->panels * g->runs, size = g->entries * TILE_COLUMNS, lines = c->N * c->OH;
    float *sums = filter_area(s, s->part);
    long from, to;
    if (4 * units * size <= FILTER_BYTES) {
        memset(sums, 0, 4 * units * size);
        share(lines, 1, s->part, s->parts, &from, &to);
        add_runs(s, g, x, dy, from, to, 0, units, sums);
        barrier(s);
        combine_runs(s, g, units, done);
        return;
    }
    share(units, 1, s->part, s->parts, &from, &to);
    const long at_once = larger_of(1, FILTER_BYTES / (4 * size));
    for (long first = from, last; first < to; first = last) {
        last = smaller_of(to, first + at_once);
        memset(sums, 0, 4 * (last - first) * size);
        add_runs(s, g, x, dy, 0, lines, first, last, sums);
        deliver_runs(s, g, sums, first, 0, (last - first) * g->entries, done);
    }
}

/* f64: plain loops, for programs that check f32 -------------------------------------------------------------------- */

#define COLUMNS_F64 64 /* results at once */

/* The place of tap i in the image, or -1 if it lies outside. */
INLINE long place_of_tap(long p, long i, long stride, long dilation, long pad, long size) {
    const long place = p * stride + i * dilation - pad;
    return place < size ? place : -1;
}

/* Filters [from, to) of one pixel of the result. */
static UNUSED void convolve_pixel_f64(
    const Convolution *c, const double *x, const double *w, long n, long p, long q, long from, long to, double *sums) {
    const long depth = c->C / c->groups, filters = c->F / c->groups;
    for (long f = from; f < to; ++f) sums[f - from] = 0;
    for (long i = 0; i < c->KH; ++i)
        for (long j = 0; j < c->KW; ++j) {
            const long y = place_of_tap(p, i, c->stride_y, c->dilation_y, c->pad_top, c->H);
            const long column = place_of_tap(q, j, c->stride_x, c->dilation_x, c->pad_left, c->W);
            if (y < 0 || column < 0) continue;
            const double *pixel = x + ((n * c->H + y) * c->W + column) * c->C;
            const double *tap = w + (i * c->KW + j) * depth * c->F;
            for (long d = 0; d < depth; ++d)
                for (long f = from; f < to; ++f) sums[f - from] += pixel[f / filters * depth + d] * tap[d * c->F + f];
        }
}

TEMPLATE void convolve_f64(
    const Step *s, const Convolution *c, const double *x, const double *w, TileDone_f64 done) {
    double sums[COLUMNS_F64];
    long from, to;
    share(c->N * c->OH * c->OW, 1, s->part, s->parts, &from, &to);
    for (long row = from; row < to; ++row)
        for (long f = 0; f < c->F; f += COLUMNS_F64) {
            const long end = smaller_of(c->F, f + COLUMNS_F64);
            convolve_pixel_f64(
                c, x, w, row / c->OW / c->OH, row / c->OW % c->OH, row % c->OW, f, end, sums);
            done(s, sums, COLUMNS_F64, 0, row, 1, f, end - f);
        }
}

/* Channels [from, to) of pixel (h, v) of the gradient of the input. */
static UNUSED void input_grad_pixel_f64(
    const Convolution *c, const double *dy, const double *w, long n, long h, long v, long from, long to, double *sums) {
    const long depth = c->C / c->groups, filters = c->F / c->groups;
    for (long d = from; d < to; ++d) sums[d - from] = 0;
    for (long i = 0; i < c->KH; ++i)
        for (long j = 0; j < c->KW; ++j) {
            const long y = h + c->pad_top - i * c->dilation_y, x = v + c->pad_left - j * c->dilation_x;
            const long p = y / c->stride_y, q = x / c->stride_x;
            if (y < 0 || x < 0 || y % c->stride_y || x % c->stride_x || p >= c->OH || q >= c->OW) continue;
            const double *pixel = dy + ((n * c->OH + p) * c->OW + q) * c->F;
            const double *tap = w + (i * c->KW + j) * depth * c->F;
            for (long d = from; d < to; ++d)
                for (long f = d / depth * filters; f < (d / depth + 1) * filters; ++f)
                    sums[d - from] += pixel[f] * tap[d % depth * c->F + f];
        }
}

TEMPLATE void convolve_input_grad_f64(
    const Step *s, const Convolution *c, const double *dy, const double *w, TileDone_f64 done) {
    double sums[COLUMNS_F64];
    long from, to;
    share(c->N * c->H * c->W, 1, s->part, s->parts, &from, &to);
    for (long row = from; row < to; ++row)
        for (long d = 0; d < c->C; d += COLUMNS_F64) {
            const long end = smaller_of(c->C, d + COLUMNS_F64);
            input_grad_pixel_f64(c, dy, w, row / c->W / c->H, row / c->W % c->H, row % c->W, d, end, sums);
            done(s, sums, COLUMNS_F64, 0, row, 1, d, end - d);
        }
}

/* Filters [from, to) of tap (i, j), channel d of the group: sums over all pixels. */
static UNUSED void filter_grad_entry_f64(
    const Convolution *c, const double *x, const double *dy, long i, long j, long d, long from, long to, double *sums) {
    const long depth = c->C / c->groups, filters = c->F / c->groups;
    for (long f = from; f < to; ++f) sums[f - from] = 0;
    for (long row = 0; row < c->N * c->OH * c->OW; ++row) {
        const long y = place_of_tap(row / c->OW % c->OH, i, c->stride_y, c->dilation_y, c->pad_top, c->H);
        const long column = place_of_tap(row % c->OW, j, c->stride_x, c->dilation_x, c->pad_left, c->W);
        if (y < 0 || column < 0) continue;
        const double *pixel = x + ((row / c->OW / c->OH * c->H + y) * c->W + column) * c->C;
        for (long f = from; f < to; ++f) sums[f - from] += pixel[f / filters * depth + d] * dy[row * c->F + f];
    }
}

TEMPLATE void convolve_filter_grad_f64(
    const Step *s, const Convolution *c, const double *x, const double *dy, TileDone_f64 done) {
    double sums[COLUMNS_F64];
    const long depth = c->C / c->groups;
    long from, to;
    share(c->KH * c->KW * depth, 1, s->part, s->parts, &from, &to);
    for (long row = from; row < to; ++row)
        for (long f = 0; f < c->F; f += COLUMNS_F64) {
            const long end = smaller_of(c->F, f + COLUMNS_F64);
            filter_grad_entry_f64(c, x, dy, row / depth / c->KW, row / depth % c->KW, row % depth, f, end, sums);
            done(s, sums, COLUMNS_F64, 0, row, 1, f, end - f);
        }
}
