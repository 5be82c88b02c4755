/* Times one product for native_products.py: seconds of processor time of one thread, or of the clock with two. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "products.h"

static float *result;
static long result_columns;

static void done(const Step *s UNUSED, const float *tile, long stride, long batch UNUSED, long row, long rows,
    long column, long columns) {
    for (long i = 0; i < rows; i++) {
        float *to = result + (row + i) * result_columns + column;
        PRAGMA(omp simd)
        for (long j = 0; j < columns; j++) to[j] = tile[i * stride + j];
    }
}

static Product product;
static void compute(const Step *s) { multiply(s, &product, done); }

/* Of the pool of threads: see runtime/native/pool.c. */
int nnc_run(GraphFunction f, char *arena, long B, char *workspaces, long workspace_bytes, int parts);

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* The fastest of many calls. a_transposed: A is stored as depth x rows; b_transposed: B as columns x depth. */
double fastest(long rows, long columns, long depth, int a_transposed, int b_transposed, int threads, double seconds,
    const float *a, const float *b, float *c) {
    const long bytes = (PRODUCT_WORKSPACE + 4095) / 4096 * 4096;
    const clockid_t clock = threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    static char *workspaces;
    if (!workspaces) workspaces = aligned_alloc(4096, 64 * bytes);
    result = c, result_columns = columns;
    product = (Product){1, rows, columns, depth, a, 0, a_transposed ? 1 : depth, a_transposed ? rows : 1, b, 0,
        b_transposed ? 1 : columns, b_transposed ? depth : 1};
    const long calls = 1 + (long)(2e6 / (2. * rows * columns * depth + 1000));
    double best = 1e9, spent = 0;
    for (long n = 0; spent < seconds || n < 3; n++) {
        const double start = now(clock);
        for (long i = 0; i < calls; i++) {
            if (threads == 1) compute(&(Step){.parts = 1, .workspaces = workspaces, .workspace_bytes = bytes});
            else nnc_run(compute, NULL, 1, workspaces, bytes, threads);
        }
        const double once = now(clock) - start;
        spent += once;
        if (once / calls < best) best = once / calls;
    }
    return best;
}
