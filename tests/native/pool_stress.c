/* Calls of the pool with random numbers of threads and random pauses, to be compiled with a sanitizer of threads. */
#include "pool.c"
#include <stdio.h>
#include <stdlib.h>

static void rest(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    const struct timespec time = {0, (*state >> 16) % 20000};
    if ((*state >> 8) % 16 == 0) nanosleep(&time, 0);
}

static void add(const Step *s) {
    long *numbers = (long *)s->arena, from, to, sum = 0;
    static _Thread_local unsigned state;
    if (!state) state = s->part + 1;
    for (int round = 0; round < 3; ++round) {
        share(s->B, 1, s->part, s->parts, &from, &to);
        for (long i = from; i < to; ++i) numbers[i] += 1;
        rest(&state);
        barrier(s);
        sum = 0;
        for (long i = 0; i < s->B; ++i) sum += numbers[i];
        if (sum != numbers[0] * s->B) abort();
        barrier(s);
    }
}

static void *call(void *argument) {
    static long numbers[2][64];
    long *own = numbers[(long)argument];
    unsigned state = (long)argument;
    for (int i = 0; i < 300; ++i) {
        const int parts = 1 + i % 5;
        if (nnc_run(add, (char *)own, 64, 0, 0, parts)) abort();
        rest(&state);
    }
    if (own[63] != 900) abort();
    return 0;
}

int main(void) {
    pthread_t other;
    if (pthread_create(&other, 0, call, (void *)1)) return 1;
    call(0);
    pthread_join(other, 0);
    puts("done");
    return 0;
}
