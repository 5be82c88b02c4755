/* What the functions of regions call, besides templates and functions of numbers. */
#pragma once
#include "step.h"

#define STRIP (16 * LANES) /* numbers that are added in f32 before they are added in f64: 16 in each lane */

INLINE long smaller(long a, long b) { return a < b ? a : b; }

/* The row of a table, or the nearest one: no index reads or writes outside of it. */
INLINE long nearest(long long row, long rows) { return row < 0 ? 0 : row < rows ? row : rows - 1; }

/* Copies bytes of the arena that do not overlap; each thread its share. */
UNUSED static void copy(const Step *s, long to, long from, long bytes) {
    long first, last;
    share(bytes, 64, s->part, s->parts, &first, &last);
    memcpy(s->arena + to + first, s->arena + from + first, last - first);
}

/* Functions that do not depend on each other: each on a thread of its own if there are enough, else one after another
   on all threads. */
UNUSED static void apart(const Step *s, int count, const GraphFunction *functions) {
    if (s->parts == 1 || s->parts > count) {
        for (int i = 0; i < count; ++i) {
            functions[i](s);
            barrier(s);
        }
        return;
    }
    Step alone = *s;
    alone.part = 0;
    alone.parts = 1;
    alone.workspaces = workspace_of(s, s->part);
    for (int i = s->part; i < count; i += s->parts) functions[i](&alone);
}
