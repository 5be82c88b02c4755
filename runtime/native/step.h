/* What each function of a graph gets, on every thread of the pool, and how threads wait for each other and share work. */
#pragma once
#include <stdatomic.h>
#include "vectors.h"

typedef struct Barrier Barrier;

typedef struct Step {
    char *arena;          /* tensors at the offsets of the memory plan, aligned to 64 bytes */
    long B;               /* examples in the batch */
    int part, parts;      /* this thread of how many; with one, barrier() does nothing */
    char *workspaces;     /* workspace_bytes for each thread, aligned to 64 bytes */
    long workspace_bytes;
    Barrier *barrier;
    long t[4];            /* time steps of the scans around, outermost first */
} Step;

typedef void (*GraphFunction)(const Step *s);

/* rows x columns results at (row, column) of a matrix: tile[i * stride + j], i < rows, j < columns. */
typedef void (*TileDone)(
    const Step *s, const float *tile, long stride, long batch, long row, long rows, long column, long columns);

INLINE char *workspace_of(const Step *s, int part) { return s->workspaces + part * s->workspace_bytes; }

/* The share of a part in n items, in multiples of `unit`: always the same items for the same number of parts. */
INLINE void share(long n, long unit, int part, int parts, long *from, long *to) {
    const long units = (n + unit - 1) / unit;
    *from = units * part / parts * unit;
    *to = units * (part + 1) / parts * unit;
    if (*from > n) *from = n;
    if (*to > n) *to = n;
}
