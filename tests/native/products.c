/* Runs products for test_products.py: reads cases from stdin, writes their results to stdout.

   A case: 64-bit?, parts, then batch, rows, columns, depth, the six strides of a and b, numbers of a, b and the result;
   then a and b, with NaN wherever the product must not look. Arrays have exactly their size, with NaN around;
   workspaces have exactly PRODUCT_WORKSPACE bytes, full of NaN. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "step.h"
#include "meeting.h"
#define barrier meet
#include "products.h"

enum { AROUND = 64 }; /* numbers before and after each array */

typedef struct {
    long wide, parts, batch, rows, columns, depth, a_batch, a_row, a_step, b_batch, b_step, b_column, a, b, result;
} Case;

static Case now;
static char *left, *right, *result;
static int *written;

static void fail(const char *what) {
    fprintf(stderr, "%s:", what);
    for (size_t i = 0; i < sizeof now / sizeof(long); ++i) fprintf(stderr, " %ld", ((long *)&now)[i]);
    fprintf(stderr, "\n");
    exit(3);
}

/* Copies a tile to its place in the result. */
#define DONE(name, type) \
    static void name( \
        const Step *s, const type *tile, long stride, long batch, long row, long rows, long column, long columns) { \
        if (s->part >= now.parts || batch < 0 || batch >= now.batch) fail("no such batch"); \
        if (row < 0 || row + rows > now.rows || column < 0 || column + columns > now.columns) fail("no such result"); \
        for (long i = 0; i < rows; ++i) \
            for (long j = 0; j < columns; ++j) { \
                const long at = (batch * now.rows + row + i) * now.columns + column + j; \
                written[at]++; \
                ((type *)result)[at] = tile[i * stride + j]; \
            } \
    }
DONE(done, float)
DONE(done_f64, double)

static void *compute(void *step) {
    const Case c = now;
    if (c.wide)
        multiply_f64(step, &(Product_f64){c.batch, c.rows, c.columns, c.depth, (double *)left, c.a_batch, c.a_row,
                c.a_step, (double *)right, c.b_batch, c.b_step, c.b_column}, done_f64);
    else
        multiply(step, &(Product){c.batch, c.rows, c.columns, c.depth, (float *)left, c.a_batch, c.a_row,
                c.a_step, (float *)right, c.b_batch, c.b_step, c.b_column}, done);
    return NULL;
}

#ifdef EXACT /* for the address sanitizer: what is around the arrays may not even be read */
#define MARGIN 0
#else
#define MARGIN AROUND
#endif

static char *array(long numbers, long bytes) {
    char *all = malloc((numbers + 2 * MARGIN) * bytes);
    memset(all, 0xff, (numbers + 2 * MARGIN) * bytes); /* NaN */
    return all + MARGIN * bytes;
}

static void release(char *place, long numbers, long bytes) {
    for (long i = 0; i < MARGIN * bytes; ++i)
        if ((unsigned char)place[i - MARGIN * bytes] != 0xff || (unsigned char)place[numbers * bytes + i] != 0xff)
            fail("written outside of an array");
    free(place - MARGIN * bytes);
}

static void run(void) {
    const long parts = now.parts, workspace = divided_up(PRODUCT_WORKSPACE, 64) * 64;
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
    end_meeting();
    free(workspaces);
}

int main(void) {
    while (fread(&now, sizeof now, 1, stdin) == 1) {
        const long bytes = now.wide ? 8 : 4;
        written = calloc(now.result + 1, sizeof *written);
        left = array(now.a, bytes), right = array(now.b, bytes), result = array(now.result, bytes);
        if (fread(left, bytes, now.a, stdin) != (size_t)now.a || fread(right, bytes, now.b, stdin) != (size_t)now.b)
            fail("too few numbers");
        run();
        fwrite(result, bytes, now.result, stdout);
        release(left, now.a, bytes), release(right, now.b, bytes), release(result, now.result, bytes);
        free(written);
    }
    return 0;
}
