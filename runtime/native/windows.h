/* Windows that slide over images: what forward convolutions and gradients of the input have in common.

   The gradient of the input is a sum of forward convolutions of dy: with stride s, the pixels h with the same
   remainder h % s read a window of dy that moves by one pixel. Its taps are every (s / gcd(s, dilation))-th of the
   filter, flipped. So no tap meets a zero between pixels, and each result is written once. */
#pragma once
#include "product.h"

/* A convolution of N images [N, H, W, C], channels last, with filters [KH, KW, C / groups, F]. Results: [N, OH, OW, F].
   N may depend on the batch. See compiler/ops/convolution.py. */
typedef struct {
    long N, H, W, C, F, KH, KW, OH, OW, groups, stride_y, stride_x, pad_top, pad_left, dilation_y, dilation_x;
} Convolution;

/* Areas of the workspace of a thread, in bytes: packed filters or sums for them; rows of images; columns of dy. */
#define FILTER_BYTES (1L << 19)
#define STRIP_BYTES (1L << 19)
#define COLUMN_BYTES (1L << 17)
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define FILTER_AREA(KH, KW, C, F, groups) \
    (LARGER(FILTER_BYTES, LARGER(128 * (KH) * (KW) * (LARGER(C, F) / (groups)), 4 * (KH) * (KW) * (F))) + 64)
#define STRIP_AREA(C, F, KH, KW, groups, stride_y, stride_x, dilation_y, dilation_x) \
    (LARGER(STRIP_BYTES, 4 * (((KH) - 1) * (dilation_y) + 1) * (LARGER(C, F) / (groups)) * \
        (13 * LARGER(stride_y, stride_x) + ((KW) - 1) * (dilation_x) + 1)) + 64)

/* Bytes of workspace that each thread needs for a convolution and its adjoints, in f32:

   max(2^19, 128 KH KW (max(C, F) / groups), 4 KH KW F)
   + max(2^19, 4 ((KH - 1) dilation_y + 1) (max(C, F) / groups) (13 max(stride_y, stride_x) + (KW - 1) dilation_x + 1))
   + 2^17 + 256, rounded up to a multiple of 64. / is the whole part of the quotient. In f64: 0.

   So at least the filters of one panel, and the pixels that one tile reads. */
#define CONVOLUTION_WORKSPACE(C, F, KH, KW, groups, stride_y, stride_x, dilation_y, dilation_x) \
    ((FILTER_AREA(KH, KW, C, F, groups) + \
      STRIP_AREA(C, F, KH, KW, groups, stride_y, stride_x, dilation_y, dilation_x) + COLUMN_BYTES + 64 + 64 + 63) \
     / 64 * 64)

/* Places of the areas in the workspace of a thread, aligned to 64 bytes. */
INLINE float *filter_area(const Step *s, int part) { return (float *)workspace_of(s, part); }
INLINE float *strip_area(const Step *s, const Convolution *c) {
    return (float *)(workspace_of(s, s->part) + (FILTER_AREA(c->KH, c->KW, c->C, c->F, c->groups) + 63) / 64 * 64);
}
INLINE float *column_area(const Step *s, const Convolution *c) {
    const long strip = STRIP_AREA(
        c->C, c->F, c->KH, c->KW, c->groups, c->stride_y, c->stride_x, c->dilation_y, c->dilation_x);
    return strip_area(s, c) + (strip + 63) / 64 * 16;
}

/* Images of one column, as of sequences [N, steps, 1, C], are images of one row: tiles are of pixels in a row. */
UNUSED static Convolution turned_images(const Convolution *c) {
    Convolution t = *c;
    if (c->W != 1 || c->KW != 1 || c->OW != 1 || c->pad_left) return t;
    t.H = t.KH = t.OH = 1;
    t.W = c->H, t.KW = c->KH, t.OW = c->OH;
    t.stride_y = t.dilation_y = 1, t.pad_top = 0;
    t.stride_x = c->stride_y, t.dilation_x = c->dilation_y, t.pad_left = c->pad_top;
    return t;
}

/* A forward convolution with filters in any order, whose results are every step-th pixel of [N, result_H, result_W].
   The window of result (p, q) starts at pixel (p * stride_y - top, q * stride_x - left). */
typedef struct {
    long N, H, W, C;             /* the images that are read */
    long groups, depth, filters; /* in each group: channels that are read, channels of results */
    long KH, KW, OH, OW;
    long stride_y, stride_x, top, left, dilation_y, dilation_x;
    const float *w;
    long w_y, w_x, w_depth, w_filter, w_group; /* strides of the filters, possibly negative */
    long result_H, result_W, from_y, from_x, step_y, step_x;
} Window;

INLINE long smaller_of(long a, long b) { return a < b ? a : b; }
INLINE long larger_of(long a, long b) { return a > b ? a : b; }

/* Taps first <= i < last are those with 0 <= start + i * step < size. */
INLINE long first_tap(long start, long step) { return start < 0 ? (step - 1 - start) / step : 0; }
INLINE long last_tap(long start, long step, long size, long taps) {
    return start < size ? smaller_of(taps, (size - 1 - start) / step + 1) : 0;
}

/* The row of the matrix of results for pixel (p, q) of image n. */
INLINE long result_row(const Window *k, long n, long p, long q) {
    return (n * k->result_H + k->from_y + p * k->step_y) * k->result_W + k->from_x + q * k->step_x;
}

/* Taps that lie in the image. */
typedef struct { long y, y_end, x, x_end; } Taps;

/* Some pixels of a tile that are `step` rows of the result apart. */
INLINE void deliver_pixels(
    const Step *s, TileDone done, const float *tile, long stride, long row, long step, long rows, long column,
    long columns) {
    if (step == 1) {
        done(s, tile, stride, 0, row, rows, column, columns);
        return;
    }
    for (long i = 0; i < rows; ++i) done(s, tile + i * stride, stride, 0, row + i * step, 1, column, columns);
}

UNUSED static Window forward_window(const Convolution *c, const float *w) {
    const long depth = c->C / c->groups, filters = c->F / c->groups;
    return (Window){
        .N = c->N, .H = c->H, .W = c->W, .C = c->C, .groups = c->groups, .depth = depth, .filters = filters,
        .KH = c->KH, .KW = c->KW, .OH = c->OH, .OW = c->OW, .stride_y = c->stride_y, .stride_x = c->stride_x,
        .top = c->pad_top, .left = c->pad_left, .dilation_y = c->dilation_y, .dilation_x = c->dilation_x,
        .w = w, .w_y = c->KW * depth * c->F, .w_x = depth * c->F, .w_depth = c->F, .w_filter = 1, .w_group = filters,
        .result_H = c->OH, .result_W = c->OW, .step_y = 1, .step_x = 1,
    };
}

/* One axis of the gradient of the input, for the pixels from, from + stride, …: the taps that reach them. */
typedef struct { long taps, last, step, pad, dilation, results; } Reach;

UNUSED static Reach reach_of(long from, long size, long taps, long stride, long pad, long dilation) {
    long common = dilation, rest = stride; /* their greatest common divisor */
    while (rest) {
        const long next = common % rest;
        common = rest;
        rest = next;
    }
    long first = 0;
    while (first < taps && first < stride && (from + pad - first * dilation) % stride) ++first;
    const bool none = first >= taps || (from + pad - first * dilation) % stride;
    const long step = stride / common, count = none ? 0 : (taps - 1 - first) / step + 1;
    const long last = none ? 0 : first + (count - 1) * step;
    return (Reach){
        .taps = count, .last = last, .step = step, .dilation = dilation / common,
        .pad = none ? 0 : -((from + pad - last * dilation) / stride),
        .results = from < size ? (size - from + stride - 1) / stride : 0,
    };
}

/* The gradient of the input at the pixels (from_y + i * stride_y, from_x + j * stride_x). */
UNUSED static Window gradient_window(const Convolution *c, const float *w, long from_y, long from_x) {
    const long depth = c->C / c->groups, filters = c->F / c->groups, w_x = depth * c->F, w_y = c->KW * w_x;
    const Reach y = reach_of(from_y, c->H, c->KH, c->stride_y, c->pad_top, c->dilation_y);
    const Reach x = reach_of(from_x, c->W, c->KW, c->stride_x, c->pad_left, c->dilation_x);
    return (Window){
        .N = c->N, .H = c->OH, .W = c->OW, .C = c->F, .groups = c->groups, .depth = filters, .filters = depth,
        .KH = y.taps, .KW = x.taps, .OH = y.results, .OW = x.results, .stride_y = 1, .stride_x = 1,
        .top = y.pad, .left = x.pad, .dilation_y = y.dilation, .dilation_x = x.dilation,
        .w = w + y.last * w_y + x.last * w_x, .w_y = -y.step * w_y, .w_x = -x.step * w_x,
        .w_depth = 1, .w_filter = c->F, .w_group = filters,
        .result_H = c->H, .result_W = c->W, .from_y = from_y, .from_x = from_x,
        .step_y = c->stride_y, .step_x = c->stride_x,
    };
}
