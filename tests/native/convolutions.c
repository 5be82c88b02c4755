/* Runs convolutions for test_convolutions.py: reads cases from stdin, writes their results to stdout.

   A case: op, 64-bit?, parts, the 16 sizes of Convolution, bytes of a workspace, numbers of a, b and the
   result; then a and b. Arrays have
   exactly their size, with NaN around; workspaces have exactly the bytes of CONVOLUTION_WORKSPACE, full of NaN. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "step.h"
#include "meeting.h"
#define barrier meet
#include "convolutions.h"

enum { AROUND = 64 }; /* numbers before and after each array */

typedef struct { long op, wide, parts; Convolution c; long workspace, a, b, result; } Case;

static Case now;
static char *left, *right, *result;
static int *written;
static long result_columns;

static void fail(const char *what) {
    fprintf(stderr, "%s: op %ld, wide %ld, parts %ld, sizes", what, now.op, now.wide, now.parts);
    for (int i = 0; i < 16; ++i) fprintf(stderr, " %ld", ((long *)&now.c)[i]);
    fprintf(stderr, "\n");
    exit(3);
}

static void done(
    const Step *s, const float *tile, long stride, long batch, long row, long rows, long column, long columns) {
    for (long i = 0; i < rows; ++i)
        for (long j = 0; j < columns; ++j) {
            const long at = (row + i) * result_columns + column + j;
            if (batch || column + j >= result_columns || at < 0 || at >= now.result) fail("no such result");
            written[at]++;
            ((float *)result)[at] = tile[i * stride + j];
        }
}

static void done_f64(
    const Step *s, const double *tile, long stride, long batch, long row, long rows, long column, long columns) {
    for (long i = 0; i < rows; ++i)
        for (long j = 0; j < columns; ++j) {
            written[(row + i) * result_columns + column + j]++;
            ((double *)result)[(row + i) * result_columns + column + j] = tile[i * stride + j];
        }
}

static void *compute(void *step) {
    static void (*const f32[])(const Step *, const Convolution *, const float *, const float *, TileDone) = {
        convolve, convolve_input_grad, convolve_filter_grad};
    static void (*const f64[])(const Step *, const Convolution *, const double *, const double *, TileDone_f64) = {
        convolve_f64, convolve_input_grad_f64, convolve_filter_grad_f64};
    if (now.wide) f64[now.op](step, &now.c, (double *)left, (double *)right, done_f64);
    else f32[now.op](step, &now.c, (float *)left, (float *)right, done);
    return NULL;
}

static char *array(long numbers, long bytes) {
    char *all = malloc((numbers + 2 * AROUND) * bytes);
    memset(all, 0xff, (numbers + 2 * AROUND) * bytes); /* NaN */
    return all + AROUND * bytes;
}

static void check_around(const char *place, long numbers, long bytes) {
    for (long i = 0; i < AROUND * bytes; ++i)
        if ((unsigned char)place[i - AROUND * bytes] != 0xff || (unsigned char)place[numbers * bytes + i] != 0xff)
            fail("written outside of an array");
}

#ifdef EXACT /* for the address sanitizer: what is around the arrays may not even be read */
static char *exact(long bytes) { return memset(malloc(bytes), 0xff, bytes); }
#endif

static void run(void) {
    const Convolution *c = &now.c;
    const long parts = now.parts, bytes = now.wide ? 8 : 4;
    const long workspace = CONVOLUTION_WORKSPACE(
        c->C, c->F, c->KH, c->KW, c->groups, c->stride_y, c->stride_x, c->dilation_y, c->dilation_x);
    if (workspace != now.workspace) fail("another formula for the workspace");
    char *workspaces = aligned_alloc(64, parts * workspace + 64);
    memset(workspaces, 0xff, parts * workspace + 64);
    Step steps[16];
    pthread_t threads[16];
    start_meeting(parts);
    for (int part = 0; part < parts; ++part) {
        steps[part] = (Step){.part = part, .parts = (int)parts, .workspaces = workspaces, .workspace_bytes = workspace};
        if (part) pthread_create(&threads[part], NULL, compute, &steps[part]);
    }
    compute(&steps[0]);
    for (int part = 1; part < parts; ++part) pthread_join(threads[part], NULL);
    for (int i = 0; i < 64; ++i)
        if ((unsigned char)workspaces[parts * workspace + i] != 0xff) fail("written after the workspaces");
    for (long i = 0; i < now.result; ++i)
        if (written[i] != 1) fail("a result that is not written once");
    fwrite(result, bytes, now.result, stdout);
    end_meeting();
    free(workspaces);
}

int main(void) {
    while (fread(&now, sizeof now, 1, stdin) == 1) {
        const long bytes = now.wide ? 8 : 4;
        result_columns = now.op == 1 ? now.c.C : now.c.F;
        written = calloc(now.result + 1, sizeof *written);
#ifdef EXACT
        left = exact(now.a * bytes), right = exact(now.b * bytes), result = exact(now.result * bytes);
#else
        left = array(now.a, bytes), right = array(now.b, bytes), result = array(now.result, bytes);
#endif
        if (fread(left, bytes, now.a, stdin) != (size_t)now.a || fread(right, bytes, now.b, stdin) != (size_t)now.b)
            fail("too few numbers");
        run();
#ifdef EXACT
        free(left), free(right), free(result);
#else
        check_around(left, now.a, bytes), check_around(right, now.b, bytes), check_around(result, now.result, bytes);
        free(left - AROUND * bytes), free(right - AROUND * bytes), free(result - AROUND * bytes);
#endif
        free(written);
    }
    return 0;
}
