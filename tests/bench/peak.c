/* The most floating-point operations that a processor can do: independent chains of fused multiply-adds in registers.

   cc -O3 -march=native -ffp-contract=fast -Iruntime/native peak.c -o peak -lpthread; ./peak THREADS
   prints GFLOP/s of all threads together: the best of many short runs. */
#include "vectors.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Enough chains to hide the latency of an FMA, few enough for the registers: 32 with AVX-512 and NEON, else 16. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define CHAINS 24
#else
#define CHAINS 12
#endif
#define STEPS 200000 /* of each chain, in a run: about a millisecond */
#define RUNS 60
#define MOST_THREADS 256

static int threads;
static int arrived; /* counts all arrivals at the barrier, of all runs */
static float results[MOST_THREADS];

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* Waits until all threads have come here `round` times. */
static void meet(int round) {
    __atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < round * threads) {}
}

static float run_chains(void) {
    Vector chains[CHAINS], factor = all(0.999f), term = all(0.001f);
    UNROLL(24) for (int i = 0; i < CHAINS; i++) chains[i] = all((float)i); /* unrolled: else they are in memory */
    for (int step = 0; step < STEPS; step++) {
        UNROLL(24) for (int i = 0; i < CHAINS; i++) chains[i] = chains[i] * factor + term;
        __asm__ volatile("" ::: "memory"); /* the loop must not be computed in advance */
    }
    UNROLL(24) for (int i = 1; i < CHAINS; i++) chains[0] += chains[i];
    float first[LANES];
    store(first, chains[0]);
    return first[0];
}

/* Each run starts and ends together. Returns the seconds of the fastest run. */
static void *work(void *part) {
    static double fastest[MOST_THREADS];
    long here = (long)part;
    fastest[here] = 1e9;
    for (int run = 0; run < RUNS; run++) {
        meet(2 * run + 1);
        double start = seconds();
        results[here] += run_chains();
        meet(2 * run + 2);
        double spent = seconds() - start;
        if (spent < fastest[here]) fastest[here] = spent;
    }
    return &fastest[here];
}

int main(int count, char **arguments) {
    threads = count > 1 ? atoi(arguments[1]) : 1;
    if (threads < 1 || threads > MOST_THREADS) return 2;
    pthread_t started[MOST_THREADS];
    for (long part = 1; part < threads; part++)
        if (pthread_create(&started[part], NULL, work, (void *)part)) return 1;
    double *fastest = work((void *)0);
    for (int part = 1; part < threads; part++) pthread_join(started[part], NULL);
    printf("%.1f\n", 2e-9 * threads * CHAINS * LANES * STEPS / *fastest);
    return 0;
}
