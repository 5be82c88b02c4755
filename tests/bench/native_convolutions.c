/* Processor time of convolutions on one thread, for native_convolutions.py. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>
#include "step.h"
#define barrier(s) ((void)(s)) /* one thread */
#include "convolutions.h"

static float *result;
static long result_columns;

static void done(
    const Step *s, const float *tile, long stride, long batch, long row, long rows, long column, long columns) {
    (void)s, (void)batch;
    for (long i = 0; i < rows; ++i) {
        float *to = result + (row + i) * result_columns + column;
#pragma omp simd
        for (long j = 0; j < columns; ++j) to[j] = tile[i * stride + j];
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* Seconds of the fastest of several calls, at least `seconds` in all. */
double fastest(long op, const long *sizes, const float *a, const float *b, float *to, double seconds) {
    static void (*const ops[])(const Step *, const Convolution *, const float *, const float *, TileDone) = {
        convolve, convolve_input_grad, convolve_filter_grad};
    Convolution c;
    memcpy(&c, sizes, sizeof c);
    result = to;
    result_columns = op == 1 ? c.C : c.F;
    const long bytes = CONVOLUTION_WORKSPACE(
        c.C, c.F, c.KH, c.KW, c.groups, c.stride_y, c.stride_x, c.dilation_y, c.dilation_x);
    char *workspace = aligned_alloc(64, bytes);
    memset(workspace, 0, bytes);
    const Step step = {.parts = 1, .workspaces = workspace, .workspace_bytes = bytes};
    double best = 1e30, total = 0;
    for (int i = 0; i < 3 || total < seconds; ++i) {
        const double start = now();
        ops[op](&step, &c, a, b, done);
        const double spent = now() - start;
        total += spent;
        if (spent < best) best = spent;
    }
    free(workspace);
    return best;
}
