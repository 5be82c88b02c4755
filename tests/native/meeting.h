/* A barrier of the system for tests of templates; that of the pool is tested elsewhere. macOS has none. */
#pragma once
#include <pthread.h>
#include "step.h"

#ifdef __APPLE__
static Barrier meeting;
static void start_meeting(long parts) { (void)parts; }
static void end_meeting(void) {}
UNUSED static void meet(const Step *s) {
    if (s->parts > 1) wait_for_all(&meeting, s->parts);
}
#else
static pthread_barrier_t meeting;
static void start_meeting(long parts) { pthread_barrier_init(&meeting, NULL, (unsigned)parts); }
static void end_meeting(void) { pthread_barrier_destroy(&meeting); }
UNUSED static void meet(const Step *s) {
    if (s->parts > 1) pthread_barrier_wait(&meeting);
}
#endif
