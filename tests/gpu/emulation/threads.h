// Launches on the host: the loop over blocks and threads, barriers and shuffles, and errors that end a launch.
//
// A kernel without barriers runs thread after thread. In one with barriers every thread of a block is a fiber: it runs
// up to a barrier, then the next one does. The launch gives the order of blocks and threads: results that depend on it,
// which is an error, differ between two orders.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>

#include "device.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace emulation {

enum Kind { NONE, INDEX, MEMORY, ARITHMETIC, ILLEGAL, DEADLOCK, DIVERGED, SHARED };

struct Fault {
  int kind;
  int line;             // of the barrier, in the kernel's text
  const void* address;  // INDEX: the start of the array; MEMORY: the address that was read or written
  ptrdiff_t index;      // INDEX: the element
  uint3 block, thread;
};

struct Order {  // index k of n is (first + k * step) mod n
  ptrdiff_t first, step;
  ptrdiff_t next(ptrdiff_t index, ptrdiff_t count) const {
    index += step;
    return index >= count ? index - count : index;
  }
};

struct Launch {
  unsigned grid[3], block[3];
  Order indices, blocks, threads;  // `indices` for the loop of an elementwise kernel
};

// Bytes around the shared memory of a kernel, which must not be written.
struct Fence {
  char bytes[1024];
  bool intact() const {
    for (char byte : bytes)
      if (byte != (char)0xFF) return false;
    return true;
  }
};

struct SharedMemory {  // with its fences, from `before` to the end of `after`
  Fence *before, *after;
  void clear() const { memset(before, 0xFF, (char*)(after + 1) - (char*)before); }
};

static const Launch* launch;
static void** arguments;
static Fault fault;
static sigjmp_buf escape;

[[noreturn]] static void fail(int kind, const void* address = nullptr, ptrdiff_t index = 0, int line = 0) {
  fault = {kind, line, address, index, blockIdx, threadIdx};
  siglongjmp(escape, 1);
}

static inline ptrdiff_t checked(ptrdiff_t index, ptrdiff_t size, const void* data) {
  if ((size_t)index >= (size_t)size) fail(INDEX, data, index);
  return index;
}

// ---- fibers: a switch of stacks; on other processors swapcontext, which also sets signals with a system call

#if defined(__x86_64__) && !defined(WITH_UCONTEXT)
typedef void* Context;  // the stack pointer; the registers that a function must preserve are below it
asm(R"(
.text
.hidden emulation_switch
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, .-emulation_switch
)");
extern "C" void emulation_switch(Context* from, Context to);
static inline void switch_context(Context& from, Context& to) { emulation_switch(&from, to); }
static void make_context(Context& context, char* stack, size_t size, void (*entry)()) {
  void** frame = (void**)(stack + size) - 8;  // six registers, the entry, and a return address that is never used
  memset(frame, 0, 8 * sizeof *frame);
  frame[6] = (void*)entry;
  context = frame;
}
#else
#include <ucontext.h>
typedef ucontext_t Context;
static inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
static void make_context(Context& context, char* stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

// ---- the threads of a block

static const unsigned MOST_THREADS = 1024, LANES = 32;
static const size_t STACK = 65536 + 1088;  // not a power of two, or the stacks would share few cache lines

enum State : char { READY, AT_BLOCK, AT_WARP, DONE };

struct Thread {
  Context context;
  uint3 index;
  State state;
  int line;            // of the barrier it waits at
  unsigned mask;       // the lanes it waits for
  unsigned source;     // the lane whose value it wants
  uint64_t given, received;
};

struct Warp {
  unsigned alive, waiting;  // bits of lanes
};

static Thread threads[MOST_THREADS];
static Warp warps[MOST_THREADS / LANES];
static unsigned count, alive, waiting, current;
static Context scheduler;
static void (*body)();

// All threads of a block must reach a barrier: one that has returned will not.
static void release_block() {
  if (waiting < count) return;
  int line = 0;
  for (unsigned i = 0; i < count; i++) {
    Thread& thread = threads[i];
    if (thread.state != AT_BLOCK) continue;
    if (line && thread.line != line) fail(DIVERGED, nullptr, 0, thread.line);
    line = thread.line;
    thread.state = READY;
  }
  waiting = 0;
}

// Lanes that wait for each other continue once all of them wait, each with the value of its source.
static void release_warp(unsigned number) {
  Warp& warp = warps[number];
  Thread* lanes = threads + number * LANES;
  for (unsigned lane = 0; lane < LANES; lane++) {
    unsigned mask = lanes[lane].mask, together = warp.waiting & mask;
    if (!(warp.waiting >> lane & 1) || together != (warp.alive & mask)) continue;
    for (unsigned other = 0; other < LANES; other++) {
      if (!(together >> other & 1)) continue;
      unsigned source = lanes[other].source;
      lanes[other].received = together >> source & 1 ? lanes[source].given : ~(uint64_t)0;  // no value: NaN, or -1
      lanes[other].state = READY;
    }
    warp.waiting &= ~together;
  }
}

static void wait() {
  switch_context(threads[current].context, scheduler);
  threadIdx = threads[current].index;
}

static void wait_for_block(int line) {
  Thread& thread = threads[current];
  thread.state = AT_BLOCK;
  thread.line = line;
  waiting++;
  release_block();
  wait();
}

// Whether any thread of the block has a value that is not zero.
static int any_of_block(int value, int line) {
  threads[current].given = value;
  wait_for_block(line);
  int any = 0;
  for (unsigned i = 0; i < count; i++) any |= threads[i].state != DONE && threads[i].given;
  wait_for_block(line);  // until all have read
  return any;
}

// The value that lane `source` of the warp gives.
template <class T>
static T exchange(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "");
  Thread& thread = threads[current];
  thread.state = AT_WARP;
  thread.mask = mask;
  thread.source = source;
  memcpy(&thread.given, &value, sizeof value);
  warps[current / LANES].waiting |= 1u << current % LANES;
  release_warp(current / LANES);
  wait();
  T result;
  memcpy(&result, &thread.received, sizeof result);
  return result;
}

static void enter() {
  threadIdx = threads[current].index;
  body();
  threads[current].state = DONE;
  alive--;
  warps[current / LANES].alive &= ~(1u << current % LANES);
  release_warp(current / LANES);
  switch_context(threads[current].context, scheduler);
}

static uint3 index_of(unsigned number, const unsigned extent[3]) {
  return {number % extent[0], number / extent[0] % extent[1], number / extent[0] / extent[1]};
}

static void run_fibers() {
  static char* stacks = (char*)malloc(MOST_THREADS * STACK);
  alive = count;
  waiting = 0;
  memset(warps, 0, sizeof warps);
  for (unsigned i = 0; i < count; i++) {
    Thread& thread = threads[i];
    make_context(thread.context, stacks + i * STACK, STACK, enter);
    thread.index = index_of(i, launch->block);
    thread.state = READY;
    warps[i / LANES].alive |= 1u << i % LANES;
  }
  while (alive) {
    bool progress = false;
    ptrdiff_t index = launch->threads.first;
    for (unsigned left = count; left; left--, index = launch->threads.next(index, count)) {
      if (threads[index].state != READY) continue;
      progress = true;
      current = index;
      switch_context(scheduler, threads[index].context);
    }
    if (!progress) fail(DEADLOCK);
  }
}

static void run_plain() {
  ptrdiff_t index = launch->threads.first;
  for (unsigned left = count; left; left--, index = launch->threads.next(index, count)) {
    threadIdx = index_of(index, launch->block);
    body();
  }
}

// ---- a launch

static void on_signal(int number, siginfo_t* info, void*) {
  int kind = number == SIGFPE ? ARITHMETIC : number == SIGILL || number == SIGTRAP ? ILLEGAL : MEMORY;
  fail(kind, info->si_addr);
}

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
static struct sigaction before[sizeof SIGNALS / sizeof *SIGNALS];

static void run_grid(bool fibers, const SharedMemory& shared) {
  const unsigned* grid = launch->grid;
  ptrdiff_t blocks = (ptrdiff_t)grid[0] * grid[1] * grid[2], index = launch->blocks.first;
  for (ptrdiff_t left = blocks; left; left--, index = launch->blocks.next(index, blocks)) {
    blockIdx = index_of(index, grid);
    shared.clear();  // a block must not find values there
    fibers ? run_fibers() : run_plain();
    if (!shared.before->intact() || !shared.after->intact()) fail(SHARED);
  }
}

// Runs a kernel; returns the kind of fault, or NONE.
static int run(void (*kernel)(), bool fibers, const SharedMemory& shared, void** values, const Launch* how) {
  launch = how;
  arguments = values;
  body = kernel;
  gridDim = {how->grid[0], how->grid[1], how->grid[2]};
  blockDim = {how->block[0], how->block[1], how->block[2]};
  count = how->block[0] * how->block[1] * how->block[2];
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) sigaction(SIGNALS[i], &action, &before[i]);
  fault.kind = NONE;
  if (!sigsetjmp(escape, 0)) run_grid(fibers, shared);
  for (size_t i = 0; i < sizeof SIGNALS / sizeof *SIGNALS; i++) sigaction(SIGNALS[i], &before[i], nullptr);
  return fault.kind;
}

}  // namespace emulation

EXPORTED emulation::Fault* last_fault() { return &emulation::fault; }

#define __syncthreads() emulation::wait_for_block(__LINE__)
#define __syncthreads_or(value) emulation::any_of_block(value, __LINE__)
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { emulation::exchange(mask, 0, emulation::current % 32); }

// Lane numbers are within a group of `width` lanes; if the source is outside, a lane gets its own value.
template <class T>
static T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  unsigned lane = emulation::current % 32, first = lane / width * width;
  return emulation::exchange(mask, value, first + source % width);
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  unsigned lane = emulation::current % 32, source = lane ^ bits;
  return emulation::exchange(mask, value, source / width <= lane / width ? source : lane);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  unsigned lane = emulation::current % 32;
  return emulation::exchange(mask, value, lane % width + distance < (unsigned)width ? lane + distance : lane);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  unsigned lane = emulation::current % 32;
  return emulation::exchange(mask, value, lane % width >= distance ? lane - distance : lane);
}
