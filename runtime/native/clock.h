/* Time by region, for `nnc profile`: MEASURED regions, each followed by a tick that gives it the time since the last. */
#pragma once
#include <time.h>
#include "step.h"

long long spent[MEASURED]; /* nanoseconds */
long long calls[MEASURED];
static _Thread_local long long last_tick;

static long long nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Only the first thread of a region reads the clock; all of them have met before. */
UNUSED static void start_clock(const Step *s) {
    if (s->part == 0) last_tick = nanoseconds();
}

UNUSED static void tick(const Step *s, int region) {
    if (s->part) return;
    const long long now = nanoseconds();
    __atomic_fetch_add(&spent[region], now - last_tick, __ATOMIC_RELAXED); /* scans tick at the same time */
    __atomic_fetch_add(&calls[region], 1, __ATOMIC_RELAXED);
    last_tick = nanoseconds();
}
