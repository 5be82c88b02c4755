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

/* Bytes as numbers of 32 bits and back, so that loops that compute with both have vectors of one length: compilers make
   these loops of vectors as short as those of bytes else. */
#define CONVERTED(n) \
    typedef int Int##n __attribute__((vector_size(4 * n))); \
    typedef int Int##n##InMemory __attribute__((vector_size(4 * n), aligned(4), may_alias)); \
    typedef unsigned char Byte##n __attribute__((vector_size(n))); \
    typedef unsigned char Byte##n##InMemory __attribute__((vector_size(n), aligned(1), may_alias)); \
    INLINE void widen_##n(int *to, const unsigned char *from) { \
        *(Int##n##InMemory *)to = __builtin_convertvector(*(const Byte##n##InMemory *)from, Int##n); \
    } \
    INLINE void narrow_##n(unsigned char *to, const int *from) { \
        *(Byte##n##InMemory *)to = __builtin_convertvector(*(const Int##n##InMemory *)from, Byte##n); \
    }
CONVERTED(16)
CONVERTED(8)

INLINE void widen(int *to, const unsigned char *from, long n) {
    long i = 0;
    for (; i + 16 <= n; i += 16) widen_16(to + i, from + i);
    if (i + 8 <= n) widen_8(to + i, from + i), i += 8;
    for (; i < n; ++i) to[i] = from[i];
}

INLINE void narrow(unsigned char *to, const int *from, long n) {
    long i = 0;
    for (; i + 16 <= n; i += 16) narrow_16(to + i, from + i);
    if (i + 8 <= n) narrow_8(to + i, from + i), i += 8;
    for (; i < n; ++i) to[i] = from[i];
}
