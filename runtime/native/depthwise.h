/* Depthwise convolutions: each channel has one filter. Vectors are over channels, so nothing is packed or copied. */
#pragma once
#include "windows.h"

#define DEPTHWISE_PIXELS 8     /* sums in registers, one for each pixel of a tile */
#define DEPTHWISE_CHANNELS 256 /* of a tile, at most */

INLINE bool is_depthwise(const Convolution *c) { return c->groups > 1 && c->C == c->groups && c->F == c->C; }

/* Some channels of a few pixels that are a_pixel numbers apart: `a` is the first tap that lies in the image, `w` its
   filter. The last vector of channels overlaps the one before it. */
INLINE void depthwise_rows(
    const int pixels, const Window *k, const float *a, const float *w, Taps taps, long channels, float *tile) {
    const long a_pixel = k->stride_x * k->C, a_y = k->dilation_y * k->W * k->C, a_x = k->dilation_x * k->C;
    const long width = taps.x_end - taps.x, w_y = k->w_y - width * k->w_x, skip = a_y - width * a_x;
    for (long block = 0; block < channels; block += LANES) {
        const long c = least(block, channels - LANES);
        const float *image = a + c, *filter = w + c;
        Vector sum[DEPTHWISE_PIXELS];
        UNROLL(8) for (int i = 0; i < pixels; ++i) sum[i] = (Vector){0};
        for (long y = taps.y; y < taps.y_end; ++y, image += skip, filter += w_y)
            for (long x = 0; x < width; ++x, image += a_x, filter += k->w_x) {
                const Vector tap = load(filter);
                UNROLL(8) for (int i = 0; i < pixels; ++i) sum[i] += load(image + i * a_pixel) * tap;
            }
        UNROLL(8) for (int i = 0; i < pixels; ++i) store(tile + i * DEPTHWISE_CHANNELS + c, sum[i]);
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
            tile[i * DEPTHWISE_CHANNELS + c] = sum;
        }
}

#define DEPTHWISE(pixels) \
    static UNUSED __attribute__((noinline)) void depthwise_##pixels( \
        const Window *k, const float *a, const float *w, Taps taps, long channels, float *tile) { \
        depthwise_rows(pixels, k, a, w, taps, channels, tile); \
    }
DEPTHWISE(1)
DEPTHWISE(2)
DEPTHWISE(4)
DEPTHWISE(8)
#undef DEPTHWISE

static UNUSED void depthwise_tile(
    int pixels, const Window *k, const float *a, const float *w, Taps taps, long channels, float *tile) {
    if (taps.y >= taps.y_end || taps.x >= taps.x_end) {
        for (int i = 0; i < pixels; ++i) memset(tile + i * DEPTHWISE_CHANNELS, 0, 4 * channels);
        return;
    }
    if (channels < LANES) depthwise_narrow(pixels, k, a, w, taps, channels, tile);
    else if (pixels == 8) depthwise_8(k, a, w, taps, channels, tile);
    else if (pixels == 4) depthwise_4(k, a, w, taps, channels, tile);
    else if (pixels == 2) depthwise_2(k, a, w, taps, channels, tile);
    else depthwise_1(k, a, w, taps, channels, tile);
}

/* Pixels from q, at most `end`, of a tile: 8, 4, 2 or 1 whose taps all lie in the row, else one. */
INLINE int depthwise_pixels(const Window *k, long q, long inner, long inner_end, long end) {
    const long left = least(end, inner_end) - q;
    if (q < inner || left < 2) return 1;
    return left >= 8 ? 8 : left >= 4 ? 4 : 2;
}

/* One row of results of one image. */
static UNUSED void depthwise_line(
    const Step *s, const Window *k, const float *x, long n, long p, TileDone done) {
    _Alignas(64) float tile[DEPTHWISE_PIXELS * DEPTHWISE_CHANNELS];
    const long y = p * k->stride_y - k->top, blocks = (k->C + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS;
    const long inner = first_tap(-k->left, k->stride_x); /* windows that lie in the row: inner <= q < inner_end */
    const long inner_end = last_tap((k->KW - 1) * k->dilation_x - k->left, k->stride_x, k->W, k->OW);
    int pixels;
    for (long q = 0; q < k->OW; q += pixels) {
        pixels = depthwise_pixels(k, q, inner, inner_end, k->OW);
        const long column = q * k->stride_x - k->left;
        const Taps taps = {
            first_tap(y, k->dilation_y), last_tap(y, k->dilation_y, k->H, k->KH),
            first_tap(column, k->dilation_x), last_tap(column, k->dilation_x, k->W, k->KW)};
        const long at = (n * k->H + y + taps.y * k->dilation_y) * k->W + column + taps.x * k->dilation_x;
        for (long block = 0; block < blocks; ++block) {
            const long c = k->C * block / blocks, channels = k->C * (block + 1) / blocks - c;
            depthwise_tile(pixels, k, x + at * k->C + c, k->w + (taps.y * k->w_y + taps.x * k->w_x + c), taps, channels,
                tile);
            deliver(s, done, tile, DEPTHWISE_CHANNELS, result_row(k, n, p, q), k->step_x, pixels, c, channels);
        }
    }
}

/* All results of a window; each thread computes its share of the rows. */
static UNUSED void slide_depthwise(const Step *s, const Window *k, const float *x, TileDone done) {
    long from, to;
    if (k->N <= 0 || k->OH <= 0) return;
    share(k->N * k->OH, 1, s->part, s->parts, &from, &to);
    for (long line = from; line < to; ++line) depthwise_line(s, k, x, line / k->OH, line % k->OH, done);
}

/* Gradient of the filters ------------------------------------------------------------------------------------------ */

/* Adds the products of some pixels to the sums of one tap: all vectors of `vectors` * LANES channels, or the last
   `lanes` of one vector. Two sums for each vector, as an addition takes several cycles. */
INLINE void depthwise_sums(
    const int vectors, const Convolution *c, const float *x, const float *dy, long rows, long columns, long lanes,
    float *sums) {
    const long x_row = c->stride_y * c->W * c->C, x_pixel = c->stride_x * c->C, dy_row = c->OW * c->C;
    Vector sum[2][4];
    UNROLL(4) for (int v = 0; v < vectors; ++v) sum[0][v] = sum[1][v] = (Vector){0};
    for (long p = 0; p < rows; ++p) {
        const float *a = x + p * x_row, *b = dy + p * dy_row;
        long q = 0;
        for (; q + 1 < columns; q += 2, a += 2 * x_pixel, b += 2 * c->C)
            UNROLL(4) for (int v = 0; v < vectors; ++v) {
                sum[0][v] += load(a + v * LANES) * load(b + v * LANES);
                sum[1][v] += load(a + x_pixel + v * LANES) * load(b + c->C + v * LANES);
            }
        if (q < columns)
            UNROLL(4) for (int v = 0; v < vectors; ++v) sum[0][v] += load(a + v * LANES) * load(b + v * LANES);
    }
    if (lanes == LANES) {
        UNROLL(4) for (int v = 0; v < vectors; ++v)
            store(sums + v * LANES, load(sums + v * LANES) + (sum[0][v] + sum[1][v]));
        return;
    }
    float last[LANES];
    store(last, sum[0][0] + sum[1][0]);
    for (long i = LANES - lanes; i < LANES; ++i) sums[i] += last[i];
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

/* Adds rows [from, to) of the results of image n to the sums of all taps [KH, KW, C]. */
static UNUSED void add_taps(
    const Convolution *c, const float *x, const float *dy, long n, long from, long to, float *sums) {
    for (long i = 0; i < c->KH; ++i)
        for (long j = 0; j < c->KW; ++j, sums += c->C) {
            const long row = i * c->dilation_y - c->pad_top, column = j * c->dilation_x - c->pad_left;
            const long p = most(from, first_tap(row, c->stride_y)), rows = last_tap(row, c->stride_y, c->H, to) - p;
            const long q = first_tap(column, c->stride_x), columns = last_tap(column, c->stride_x, c->W, c->OW) - q;
            if (rows <= 0 || columns <= 0) continue;
            const float *a = x + ((n * c->H + p * c->stride_y + row) * c->W + q * c->stride_x + column) * c->C;
            const float *b = dy + ((n * c->OH + p) * c->OW + q) * c->C;
            if (c->C < LANES) {
                depthwise_sums_narrow(c, a, b, rows, columns, sums);
                continue;
            }
            long channel = 0;
            for (; channel + 4 * LANES <= c->C; channel += 4 * LANES)
                depthwise_sums(4, c, a + channel, b + channel, rows, columns, LANES, sums + channel);
            for (; channel < c->C; channel += LANES) {
                const long at = least(channel, c->C - LANES);
                depthwise_sums(1, c, a + at, b + at, rows, columns, LANES - (channel - at), sums + at);
            }
        }
}

/* dw[KH, KW, 1, C]: sums of each thread for its share of the rows of results, added in the order of the threads. */
static UNUSED void depthwise_filter_grad(
    const Step *s, const Convolution *c, const float *x, const float *dy, TileDone done) {
    float *sums = filter_area(s, s->part);
    memset(sums, 0, 4 * c->KH * c->KW * c->C);
    const long numbers = c->OW * c->C * (1 + c->stride_y * c->stride_x);
    const long step = most(1, least(4096 / most(1, c->OW), FILTER_BYTES / 4 / most(1, numbers)));
    long from, to;
    share(c->N * c->OH, 1, s->part, s->parts, &from, &to);
    for (long line = from; line < to;) {
        const long n = line / c->OH, p = line % c->OH, end = least(least(c->OH, p + step), p + to - line);
        add_taps(c, x, dy, n, p, end, sums);
        line += end - p;
    }
    barrier(s);
    share(c->KH * c->KW * c->C, 1, s->part, s->parts, &from, &to);
    for (long i = from, end; i < to; i = end) {
        float sum[DEPTHWISE_CHANNELS];
        end = least(least(to, i + DEPTHWISE_CHANNELS), (i / c->C + 1) * c->C);
        memcpy(sum, filter_area(s, 0) + i, 4 * (end - i));
        for (int part = 1; part < s->parts; ++part)
            for (long j = i; j < end; ++j) sum[j - i] += filter_area(s, part)[j];
        done(s, sum, DEPTHWISE_CHANNELS, 0, i / c->C, 1, i % c->C, end - i);
    }
}
