/* What each function of a graph gets, on every thread of the pool, and how threads wait for each other and share work. */
#pragma once
#include <sched.h>
#include <stdatomic.h>
#include "vectors.h"

/* Where all threads of a graph wait for each other, as often as they like: the last one to come starts a new round. */
typedef struct Barrier {
    _Alignas(64) atomic_int waiting;
    _Alignas(64) atomic_uint round;
} Barrier;

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

/* rows x columns results at (row, column) of a matrix: tile[i * stride + j], i < rows, j < columns <= WIDEST_TILE. */
#define WIDEST_TILE 256
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

#define SPINS 2000 /* pauses before a waiting thread lets others use its processor */

INLINE void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* One turn of a wait that should be short. Others may need the processor, perhaps the very thread that is waited for. */
INLINE void wait_briefly(long turn) {
    if (turn < SPINS) pause_briefly();
    else sched_yield();
}

UNUSED static void wait_for_all(Barrier *barrier, int parts) {
    const unsigned round = atomic_load_explicit(&barrier->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->waiting, 1, memory_order_acq_rel) + 1 == parts) {
        atomic_store_explicit(&barrier->waiting, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->round, round + 1, memory_order_release);
        return;
    }
    for (long turn = 0; atomic_load_explicit(&barrier->round, memory_order_acquire) == round; ++turn) wait_briefly(turn);
}

/* What any thread wrote before the barrier, all threads read after it. */
INLINE void barrier(const Step *s) {
    if (s->parts > 1) wait_for_all(s->barrier, s->parts);
}
