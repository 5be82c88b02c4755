/* Depthwise convolutions: each channel has one filter. Vectors are over channels, so nothing is packed or copied.

   For the usual windows, 3 or 5 taps wide with stride 1 or 2, a vector of the image is read once for all taps of a row
   that use it, and the tile may reach over the edges of the image; others read it for each tap. */
#pragma once
#include "windows.h"

#define DEPTHWISE_PIXELS 8     /* sums in registers, one for each pixel of a tile */
#define DEPTHWISE_CHANNELS 192 /* of a tile, at most */
#define DEPTHWISE_STRIDE (DEPTHWISE_CHANNELS + LANES) /* the last tile may have some more */

INLINE bool is_depthwise(const Convolution *c) { return c->groups > 1 && c->C == c->groups && c->F == c->C; }

/* Some channels of a few pixels that are a_pixel numbers apart: `a` is the first tap that lies in the image, `w` its
   filter. The last vector of channels overlaps the one before it. */
INLINE void depthwise_rows(
    const int pixels, const Window *k, const float *a, const float *w, Taps taps, long channels, float *tile) {
    const long a_pixel = k->stride_x * k->C, a_y = k->dilation_y * k->W * k->C, a_x = k->dilation_x * k->C;
    const long width = taps.x_end - taps.x, w_y = k->w_y - width * k->w_x, skip = a_y - width * a_x;
    for (long block = 0; block < channels; block += LANES) {
        const long c = smaller_of(block, channels - LANES);
        const float *image = a + c, *filter = w + c;
        Vector sum[DEPTHWISE_PIXELS];
        UNROLL(8) for (int i = 0; i < pixels; ++i) sum[i] = (Vector){0};
        for (long y = taps.y; y < taps.y_end; ++y, image += skip, filter += w_y)
            for (long x = 0; x < width; ++x, image += a_x, filter += k->w_x) {
                const Vector tap = load(filter);
                UNROLL(8) for (int i = 0; i < pixels; ++i) sum[i] += load(image + i * a_pixel) * tap;
            }
        UNROLL(8) for (int i = 0; i < pixels; ++i) store(tile + i * DEPTHWISE_STRIDE + c, sum[i]);
    }
}

/* The same for fewer channels than a vector has lanes. */
static UNUSED void depthwise_narrow(
    int pixels, const Window *k, const float *a, const float *w, Taps taps, long channels, float *tile) {
    for (int i = 0; i < pixels; ++i)
        for (long c = 0; c < channels; ++c) {
            float sum = 0;
            for (long y = 0; y < taps.y_end - taps.y; ++y)
                for (long x = 0; x < taps.x_end - taps.x; ++x)
                    sum += a[((y * k->dilation_y * k->W + x * k->dilation_x) + i * k->stride_x) * k->C + c] *
                        w[y * k->w_y + x * k->w_x + c];
            tile[i * DEPTHWISE_STRIDE + c] = sum;
        }
}

/* A tile that may leave the image at the left and right: `a` is the first tap of the first pixel, in column `column`
   (which may lie outside), `w` its filter. All taps of `height` rows of the window are used. */
INLINE void depthwise_near(
    const int pixels, const int taps, const int stride, const Window *k, const float *x, long at, long column,
    const float *w, long height, long channels, float *tile) {
    const long a_y = k->dilation_y * k->W * k->C;
    for (long block = 0; block < channels; block += LANES) {
        const long c = smaller_of(block, channels - LANES);
        const float *filter = w + c;
        long place = at + c;
        Vector sum[DEPTHWISE_PIXELS];
        UNROLL(8) for (int i = 0; i < pixels; ++i) sum[i] = (Vector){0};
        for (long y = 0; y < height; ++y, place += a_y, filter += k->w_y) {
            Vector tap[5];
            UNROLL(5) for (int j = 0; j < taps; ++j) tap[j] = load(filter + j * k->w_x);
            UNROLL(24) for (int j = 0; j < (pixels - 1) * stride + taps; ++j) {
                if ((unsigned long)(column + j) >= (unsigned long)k->W) continue;
                const Vector seen = load(x + (place + j * k->C));
                UNROLL(8) for (int i = 0; i < pixels; ++i)
                    if (j >= i * stride && j < i * stride + taps) sum[i] += seen * tap[j - i * stride];
            }
        }
        UNROLL(8) for (int i = 0; i < pixels; ++i) store(tile + i * DEPTHWISE_STRIDE + c, sum[i]);
    }
}

/* Each kernel is a function of its own, with its sizes as constants. */
#define DEPTHWISE(pixels) \
    static UNUSED __attribute__((noinline)) void depthwise_##pixels( \
        const Window *k, const float *a, const float *w, Taps taps, long channels, float *tile) { \
        depthwise_rows(pixels, k, a, w, taps, channels, tile); \
    }
#define NEAR(taps, stride, pixels) \
    static UNUSED __attribute__((noinline)) void near_##taps##_##stride##_##pixels( \
        const Window *k, const float *x, long at, long column, const float *w, long height, long channels, \
        float *tile) { \
        depthwise_near(pixels, taps, stride, k, x, at, column, w, height, channels, tile); \
    }
#define ALL_NEAR(taps, stride) \
    NEAR(taps, stride, 1) NEAR(taps, stride, 4) NEAR(taps, stride, 7) NEAR(taps, stride, 8)
DEPTHWISE(1)
DEPTHWISE(2)
DEPTHWISE(4)
DEPTHWISE(8)
ALL_NEAR(3, 1)
ALL_NEAR(3, 2)
ALL_NEAR(5, 1)
ALL_NEAR(5, 2)
#undef DEPTHWISE
#undef NEAR
#undef ALL_NEAR

INLINE bool is_near(long taps, long stride, long dilation, long channels) {
    return (taps == 3 || taps == 5) && stride <= 2 && dilation == 1 && channels >= LANES;
}

static UNUSED void depthwise_tile(
    int pixels, const Window *k, const float *a, const float *w, Taps taps, long channels, float *tile) {
    if (channels < LANES) depthwise_narrow(pixels, k, a, w, taps, channels, tile);
    else if (pixels == 8) depthwise_8(k, a, w, taps, channels, tile);
    else if (pixels == 4) depthwise_4(k, a, w, taps, channels, tile);
    else if (pixels == 2) depthwise_2(k, a, w, taps, channels, tile);
    else depthwise_1(k, a, w, taps, channels, tile);
}

static UNUSED void near_tile(
    int pixels, const Window *k, const float *x, long at, long column, const float *w, long height, long channels,
    float *tile) {
    typedef void (*Near)(
        const Window *k, const float *x, long at, long column, const float *w, long height, long channels, float *tile);
#define NEAR(taps, stride) \
    {near_##taps##_##stride##_1, near_##taps##_##stride##_4, near_##taps##_##stride##_7, near_##taps##_##stride##_8}
    static const Near kernels[2][2][4] = {{NEAR(3, 1), NEAR(3, 2)}, {NEAR(5, 1), NEAR(5, 2)}};
#undef NEAR
    const int index = pixels == 1 ? 0 : pixels == 4 ? 1 : pixels - 5;
    kernels[k->KW == 5][k->stride_x == 2][index](k, x, at, column, w, height, channels, tile);
}

/* Pixels of the next tile, of those left in a row of results. */
INLINE int near_pixels(const Window *k, long left) {
    if (k->OW % 8 && k->OW % 7 == 0) return left >= 7 ? 7 : 1; /* 7, 14, 28: as in many networks */
    return left >= 8 ? 8 : left >= 7 ? 7 : left >= 4 ? 4 : 1;
}

/* Pixels from q of a tile whose taps all lie in the row (inner <= q < inner_end), else one. */
INLINE int other_pixels(const Window *k, long q) {
    const long inner = first_tap(-k->left, k->stride_x);
    const long inner_end = last_tap((k->KW - 1) * k->dilation_x - k->left, k->stride_x, k->W, k->OW);
    const long left = inner_end - q;
    if (q < inner || left < 2) return 1;
    return left >= 8 ? 8 : left >= 4 ? 4 : 2;
}

/* Channels [c, c + channels) of one row of results of one image. */
static UNUSED void depthwise_line(
    const Step *s, const Window *k, const float *x, long n, long p, long c, long channels, TileDone done) {
    _Alignas(64) float tile[DEPTHWISE_PIXELS * DEPTHWISE_STRIDE];
    const long y = p * k->stride_y - k->top;
    const bool near = is_near(k->KW, k->stride_x, k->dilation_x, channels);
    Taps taps = {first_tap(y, k->dilation_y), last_tap(y, k->dilation_y, k->H, k->KH), 0, k->KW};
    const float *w = k->w + (taps.y * k->w_y + c);
    int pixels;
    for (long q = 0; q < k->OW; q += pixels) {
        const long column = q * k->stride_x - k->left;
        const long at = ((n * k->H + y + taps.y * k->dilation_y) * k->W + column) * k->C + c;
        pixels = near ? near_pixels(k, k->OW - q) : other_pixels(k, q);
        taps.x = first_tap(column, k->dilation_x), taps.x_end = last_tap(column, k->dilation_x, k->W, k->KW);
        if (near) near_tile(pixels, k, x, at, column, w, taps.y_end - taps.y, channels, tile);
        else if (taps.y >= taps.y_end || taps.x >= taps.x_end)
            for (int i = 0; i < pixels; ++i) memset(tile + i * DEPTHWISE_STRIDE, 0, 4 * channels);
        else
            depthwise_tile(pixels, k, x + (at + taps.x * k->dilation_x * k->C), w + taps.x * k->w_x, taps, channels,
                tile);
        deliver_pixels(s, done, tile, DEPTHWISE_STRIDE, result_row(k, n, p, q), k->step_x, pixels, c, channels);
    }
}

/* Channels of a block: whole vectors, but for the last block. */
INLINE void depthwise_block(long channels, long block, long blocks, long *from, long *to) {
    *from = channels / LANES * block / blocks * LANES;
    *to = block + 1 < blocks ? channels / LANES * (block + 1) / blocks * LANES : channels;
}

INLINE long depthwise_blocks(long channels) { return (channels + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS; }

/* Rows [p, end) of the results of image n. */
static UNUSED void depthwise_image(
    const Step *s, const Window *k, const float *x, long n, long p, long end, TileDone done) {
    const long blocks = depthwise_blocks(k->C);
    for (long block = 0; block < blocks; ++block) {
        long c, last;
        depthwise_block(k->C, block, blocks, &c, &last);
        for (long line = p; line < end; ++line) depthwise_line(s, k, x, n, line, c, last - c, done);
    }
}

/* Each thread computes its share of the rows of y. */
static UNUSED void convolve_depthwise(
    const Step *s, const Convolution *c, const float *x, const float *w, TileDone done) {
    const Window window = forward_window(c, w);
    long from, to;
    if (c->N <= 0 || c->OH <= 0) return;
    share(c->N * c->OH, 1, s->part, s->parts, &from, &to);
    for (long first = from, end; first < to; first = end) {
        const long n = first / c->OH;
        end = smaller_of(to, (n + 1) * c->OH);
        depthwise_image(s, &window, x, n, first - n * c->OH, end - n * c->OH, done);
    }
}

/* Each thread computes its share of the rows of dx; all windows for one image before the next. */
static UNUSED void depthwise_input_grad(
    const Step *s, const Convolution *c, const float *dy, const float *w, TileDone done) {
    long from, to;
    if (c->N <= 0 || c->H <= 0) return;
    share(c->N * c->H, 1, s->part, s->parts, &from, &to);
    for (long first = from, end; first < to; first = end) {
        const long n = first / c->H, row = first - n * c->H;
        end = smaller_of(to, (n + 1) * c->H);
        for (long y = 0; y < smaller_of(c->stride_y, c->H); ++y)
            for (long x = 0; x < smaller_of(c->stride_x, c->W); ++x) {
                const Window window = gradient_window(c, w, y, x); /* its rows are y, y + stride_y, … */
                depthwise_image(s, &window, dy, n, first_tap(y - row, c->stride_y),
                    last_tap(y, c->stride_y, end - n * c->H, window.OH), done);
            }
    }
}

/* Gradient of the filters ------------------------------------------------------------------------------------------ */

#define SUMMED_PIXELS 512 /* of x and dy at once: one vector of each stays in the L1 cache for all rows of the window */

/* What is added to the sums of a row of the window, for one vector of channels: rows of results and of the image. */
typedef struct {
    const float *x, *dy;    /* the first row, at the first tap of its first pixel (which may lie outside) */
    long rows, x_row, dy_row;
    long column, W, OW, C;  /* of the first tap; columns of the image and of the results; channels */
} Strips;

/* Adds the products of some pixels of a row of results; even and odd ones apart, as an addition takes some cycles. */
INLINE void add_pixels(
    const int pixels, const int taps, const int stride, const Strips *strips, long x, const float *dy, long column,
    Vector sum[2][5]) {
    Vector right[4];
    UNROLL(4) for (int i = 0; i < pixels; ++i) right[i] = load(dy + i * strips->C);
    UNROLL(16) for (int j = 0; j < (pixels - 1) * stride + taps; ++j) {
        if ((unsigned long)(column + j) >= (unsigned long)strips->W) continue;
        const Vector seen = load(strips->x + (x + j * strips->C));
        UNROLL(4) for (int i = 0; i < pixels; ++i)
            if (j >= i * stride && j < i * stride + taps) sum[i % 2][j - i * stride] += seen * right[i];
    }
}

/* Adds to the last `lanes` lanes of the sums of all taps of a row, which are C numbers apart. */
INLINE void near_sums(const int taps, const int stride, const Strips *strips, long lanes, float *sums) {
    Vector sum[2][5];
    UNROLL(5) for (int j = 0; j < taps; ++j) sum[0][j] = sum[1][j] = (Vector){0};
    for (long p = 0; p < strips->rows; ++p) {
        long x = p * strips->x_row, column = strips->column, q = 0;
        const float *dy = strips->dy + p * strips->dy_row;
        for (; q + 4 <= strips->OW; q += 4, x += 4 * stride * strips->C, dy += 4 * strips->C, column += 4 * stride)
            add_pixels(4, taps, stride, strips, x, dy, column, sum);
        for (; q < strips->OW; ++q, x += stride * strips->C, dy += strips->C, column += stride)
            add_pixels(1, taps, stride, strips, x, dy, column, sum);
    }
    UNROLL(5) for (int j = 0; j < taps; ++j) {
        float all_lanes[LANES];
        store(all_lanes, sum[0][j] + sum[1][j]);
        for (long i = LANES - lanes; i < LANES; ++i) sums[j * strips->C + i] += all_lanes[i];
    }
}

#define NEAR(taps, stride) \
    static UNUSED __attribute__((noinline)) void near_sums_##taps##_##stride( \
        const Strips *strips, long lanes, float *sums) { \
        near_sums(taps, stride, strips, lanes, sums); \
    }
NEAR(3, 1)
NEAR(3, 2)
NEAR(5, 1)
NEAR(5, 2)
#undef NEAR

/* The same for one tap of any window, whose pixels all lie in the image: `columns` of each row. */
INLINE void other_sums(
    const Strips *strips, long stride, long columns, long lanes, float *sums) {
    Vector sum[4] = {{0}};
    for (long p = 0; p < strips->rows; ++p) {
        const float *a = strips->x + p * strips->x_row, *b = strips->dy + p * strips->dy_row;
        const long x_pixel = stride * strips->C;
        long q = 0;
        for (; q + 4 <= columns; q += 4, a += 4 * x_pixel, b += 4 * strips->C)
            UNROLL(4) for (int i = 0; i < 4; ++i) sum[i] += load(a + i * x_pixel) * load(b + i * strips->C);
        for (; q < columns; ++q, a += x_pixel, b += strips->C) sum[0] += load(a) * load(b);
    }
    float all_lanes[LANES];
    store(all_lanes, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (long i = LANES - lanes; i < LANES; ++i) sums[i] += all_lanes[i];
}

/* The same for fewer channels than a vector has lanes. */
static UNUSED void depthwise_sums_narrow(
    const Convolution *c, const float *x, const float *dy, long rows, long columns, float *sums) {
    for (long channel = 0; channel < c->C; ++channel) {
        float sum = 0;
        for (long p = 0; p < rows; ++p)
            for (long q = 0; q < columns; ++q)
                sum += x[(p * c->stride_y * c->W + q * c->stride_x) * c->C + channel] *
                    dy[(p * c->OW + q) * c->C + channel];
        sums[channel] += sum;
    }
}

/* Adds the products of rows [from, to) of the results of image n to the sums of row i of the window, for a vector of
   channels from c, of which the last `lanes` are new. */
static UNUSED void add_taps(
    const Convolution *c, const float *x, const float *dy, long n, long i, long from, long to, long channel,
    long lanes, float *sums) {
    const long row = i * c->dilation_y - c->pad_top;
    const long p = larger_of(from, first_tap(row, c->stride_y)), rows = last_tap(row, c->stride_y, c->H, to) - p;
    if (rows <= 0) return;
    const long at = ((n * c->H + p * c->stride_y + row) * c->W - c->pad_left) * c->C + channel;
    const float *b = dy + (n * c->OH + p) * c->OW * c->C + channel;
    Strips strips = {
        .rows = rows, .x_row = c->stride_y * c->W * c->C, .dy_row = c->OW * c->C, .column = -c->pad_left,
        .W = c->W, .OW = c->OW, .C = c->C};
    if (is_near(c->KW, c->stride_x, c->dilation_x, c->C)) {
        static void (*const kernels[2][2])(const Strips *, long, float *) = {
            {near_sums_3_1, near_sums_3_2}, {near_sums_5_1, near_sums_5_2}};
        strips.x = x + at, strips.dy = b;
        kernels[c->KW == 5][c->stride_x == 2](&strips, lanes, sums);
        return;
    }
    for (long j = 0; j < c->KW; ++j, sums += c->C) {
        const long column = j * c->dilation_x - c->pad_left;
        const long q = first_tap(column, c->stride_x), columns = last_tap(column, c->stride_x, c->W, c->OW) - q;
        if (columns <= 0) continue;
        strips.x = x + (at + (q * c->stride_x + j * c->dilation_x) * c->C), strips.dy = b + q * c->C;
        if (c->C < LANES) depthwise_sums_narrow(c, strips.x, strips.dy, rows, columns, sums);
        else other_sums(&strips, c->stride_x, columns, lanes, sums);
    }
}

/* Adds rows [from, to) of the results of image n to the sums of all taps [KH, KW, C]. */
static UNUSED void add_lines(
    const Convolution *c, const float *x, const float *dy, long n, long from, long to, float *sums) {
    for (long channel = 0; channel < c->C; channel += LANES) {
        const long at = larger_of(0, smaller_of(channel, c->C - LANES));
        for (long i = 0; i < c->KH; ++i)
            add_taps(c, x, dy, n, i, from, to, at, LANES - (channel - at), sums + i * c->KW * c->C + at);
    }
}

/* dw[KH, KW, 1, C]: sums of each thread for its share of the rows of results, added in the order of the threads. */
static UNUSED void depthwise_filter_grad(
    const Step *s, const Convolution *c, const float *x, const float *dy, TileDone done) {
    float *sums = filter_area(s, s->part);
    memset(sums, 0, 4 * c->KH * c->KW * c->C);
    const long step = larger_of(1, SUMMED_PIXELS / larger_of(1, c->OW + c->stride_y * c->W));
    long from, to;
    share(c->N * c->OH, 1, s->part, s->parts, &from, &to);
    for (long line = from; line < to;) {
        const long n = line / c->OH, p = line % c->OH, end = smaller_of(smaller_of(c->OH, p + step), p + to - line);
        add_lines(c, x, dy, n, p, end, sums);
        line += end - p;
    }
    barrier(s);
    share(c->KH * c->KW * c->C, 1, s->part, s->parts, &from, &to);
    for (long i = from, end; i < to; i = end) {
        float sum[DEPTHWISE_CHANNELS];
        end = smaller_of(smaller_of(to, i + DEPTHWISE_CHANNELS), (i / c->C + 1) * c->C);
        memcpy(sum, filter_area(s, 0) + i, 4 * (end - i));
        for (int part = 1; part < s->parts; ++part)
            for (long j = i; j < end; ++j) sum[j - i] += filter_area(s, part)[j];
        done(s, sum, DEPTHWISE_CHANNELS, 0, i / c->C, 1, i % c->C, end - i);
    }
}
