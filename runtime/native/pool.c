/* The threads that run graphs: one pool for all graphs of a process.

   Every thread of a call runs the whole function of the graph, each for its own part of the work. Between calls, threads
   first spin, then let others use their processors, then sleep. The caller is one of the threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_setaffinity */
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include "step.h"
#ifdef __linux__
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define MOST_THREADS 255
#define YIELD_AFTER 300000 /* nanoseconds without work; a step of Python between two calls is shorter */
#define SLEEP_AFTER 1500000
#define STACK_BYTES (8L << 20) /* as for the main thread of a process; macOS gives others 512 KB */

static struct {
    /* The number of the call * 256 + the threads it needs. A new value starts these threads. Threads that it does not
       need read nothing else, since the caller may already write the next call. */
    _Alignas(64) atomic_uint call;
    _Alignas(64) atomic_int running; /* threads of the call that are not yet done, without the caller */
    _Alignas(64) atomic_int asleep;
    Barrier barrier;
    GraphFunction function;
    Step step; /* what all threads get, except for their part */
    int started; /* threads that exist, with the caller */
} pool = {.started = 1};
static struct Worker { int part; unsigned seen; } workers[MOST_THREADS];
static pthread_mutex_t one_caller = PTHREAD_MUTEX_INITIALIZER;

/* Sleeping ----------------------------------------------------------------------------------------------------------- */

#ifdef __linux__
/* Returns at once if there is a new call, and may return without one. */
static void sleep_during(unsigned call) { syscall(SYS_futex, &pool.call, FUTEX_WAIT_PRIVATE, call, 0, 0, 0); }
static void wake_all(void) { syscall(SYS_futex, &pool.call, FUTEX_WAKE_PRIVATE, INT_MAX, 0, 0, 0); }
static void forget_sleepers(void) {}
#else
static pthread_mutex_t sleeping = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;

static void sleep_during(unsigned call) {
    pthread_mutex_lock(&sleeping);
    if (atomic_load(&pool.call) == call) pthread_cond_wait(&woken, &sleeping);
    pthread_mutex_unlock(&sleeping);
}
static void wake_all(void) {
    pthread_mutex_lock(&sleeping);
    pthread_cond_broadcast(&woken);
    pthread_mutex_unlock(&sleeping);
}
static void forget_sleepers(void) {
    pthread_mutex_init(&sleeping, 0);
    pthread_cond_init(&woken, 0);
}
#endif

static long long nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Waits for a call other than the one seen last. */
static unsigned next_call(unsigned seen) {
    const long long begun = nanoseconds();
    for (long long waited = 0; waited < SLEEP_AFTER; waited = nanoseconds() - begun) {
        for (int turn = 0; turn < 64; ++turn) {
            const unsigned call = atomic_load_explicit(&pool.call, memory_order_acquire);
            if (call != seen) return call;
            pause_briefly();
        }
        if (waited > YIELD_AFTER) sched_yield();
    }
    unsigned call;
    atomic_fetch_add(&pool.asleep, 1); /* before the call is read, as the caller writes the call before it reads this */
    while ((call = atomic_load(&pool.call)) == seen) sleep_during(seen);
    atomic_fetch_sub(&pool.asleep, 1);
    return call;
}

/* Threads ------------------------------------------------------------------------------------------------------------ */

/* Binds this thread to a processor of its own if there are as many threads as processors: Linux sometimes leaves two
   spinning threads on one processor for seconds. With fewer threads, other processes would be bound to the same. */
static void pin(int part, int parts, bool stay) {
#ifdef __linux__
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) != parts) return;
    CPU_ZERO(&one);
    for (int processor = 0; processor < CPU_SETSIZE; ++processor)
        if (CPU_ISSET(processor, &allowed) && part-- == 0) CPU_SET(processor, &one);
    sched_setaffinity(0, sizeof one, &one);
    if (!stay) sched_setaffinity(0, sizeof allowed, &allowed); /* it has been moved there, and is free again */
#else
    (void)part, (void)parts, (void)stay;
#endif
}

static void run_part(int part) {
    Step own = pool.step;
    own.part = part;
    pool.function(&own);
}

static void *work(void *argument) {
    const struct Worker *worker = argument;
    unsigned call = worker->seen;
    for (bool pinned = false;;) {
        call = next_call(call);
        const int parts = call % 256;
        if (worker->part >= parts) continue;
        if (!pinned) pin(worker->part, parts, true);
        pinned = true;
        run_part(worker->part);
        atomic_fetch_sub_explicit(&pool.running, 1, memory_order_release);
    }
    return 0;
}

/* In the child of a fork no thread exists but the one that called it. */
static void forget_threads(void) {
    atomic_store(&pool.call, 0);
    atomic_store(&pool.running, 0);
    atomic_store(&pool.asleep, 0);
    atomic_store(&pool.barrier.waiting, 0);
    pool.started = 1;
    pthread_mutex_init(&one_caller, 0);
    forget_sleepers();
}

static void prepare_for_forks(void) { pthread_atfork(0, 0, forget_threads); }

/* Starts the threads that are missing; 0 or an error of the system. Signals are left to the other threads. */
static int start_threads(int parts) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (pool.started >= parts) return 0;
    pthread_once(&once, prepare_for_forks);
    sigset_t every, before;
    sigfillset(&every);
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error) return error;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    for (; pool.started < parts && !error; pool.started += !error) {
        struct Worker *worker = &workers[pool.started];
        *worker = (struct Worker){pool.started, atomic_load(&pool.call)};
        pthread_t thread;
        error = pthread_create(&thread, &attributes, work, worker);
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
    pthread_attr_destroy(&attributes);
    if (!error) pin(0, parts, false);
    return error;
}

/* Runs a graph on `parts` threads and returns when all of them are done: 0, or an error of the system if they cannot be
   started. A second caller waits for the first, so all graphs may use the same workspaces. */
int nnc_run(GraphFunction function, char *arena, long B, char *workspaces, long workspace_bytes, int parts) {
    if (parts < 1 || parts > MOST_THREADS) return EINVAL;
    pthread_mutex_lock(&one_caller);
    const int error = start_threads(parts);
    if (!error) {
        pool.function = function;
        pool.step = (Step){arena, B, 0, parts, workspaces, workspace_bytes, &pool.barrier, {0}};
        if (parts > 1) {
            atomic_store_explicit(&pool.running, parts - 1, memory_order_relaxed);
            atomic_store(&pool.call, (atomic_load(&pool.call) / 256 + 1) * 256 + parts);
            if (atomic_load(&pool.asleep)) wake_all();
        }
        run_part(0);
        for (long turn = 0; atomic_load_explicit(&pool.running, memory_order_acquire); ++turn) wait_briefly(turn);
    }
    pthread_mutex_unlock(&one_caller);
    return error;
}
